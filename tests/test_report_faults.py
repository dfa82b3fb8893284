"""Stores that are not as tidy as a sweep leaves them, and outputs that are no plain files."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from petl_bench.config import plan
from petl_bench.store import ROW, Store
from petl_bench.types import run_id
from tests import processes
from tests.conftest import SCRIPT, error_of, petl, quickly
from tests.made import make_row

FULL = ["task=digits,surfaces,sprites_loc,sprites_ori,shapes_count", "protocol=fixed"]


def fill(root: Path, *overrides: str, **changes: Any) -> None:
    for number, spec in enumerate(plan(["sweep=none", *FULL, *overrides]).runs):
        acc = 0.5 + number / 100
        Store(root).put(spec, make_row(spec, acc, **changes), b"adapter")


def averages(root: Path) -> dict[tuple[str, float | None], str]:
    content = json.loads(quickly("report", "--store", root, "--format", "json").stdout)
    return {(line["adapter"], line.get("scale")): line["tasks"] for line in content["averages"]}


def warnings(root: Path) -> str:
    return "\n".join(json.loads(quickly("report", "--store", root, "--format", "json").stdout)["warnings"])


def test_a_duplicate_leaves_other_rows_whole(tmp_path: Path) -> None:
    fill(tmp_path, "adapter=adaptformer", "bits=1")  # tuned scales, which differ by task
    (spec, *_) = plan(["sweep=none", *FULL, "adapter=linear"]).runs
    for number in range(2):
        row = make_row(spec, 0.5, run_id=run_id(spec, str(number)), backbone_sha256=str(number))
        Store(tmp_path).put(spec, row, b"adapter")
    assert averages(tmp_path) == {("linear", None): "1/5", ("adaptformer", None): "5/5"}
    assert "differ in something the table does not show" in warnings(tmp_path)
    assert "3 different weights of one backbone" in warnings(tmp_path)


def test_scales_tried_in_one_row_are_rows_of_their_own_and_split_no_other(tmp_path: Path) -> None:
    fill(tmp_path, "adapter=adaptformer", "bits=1")
    fill(tmp_path, "adapter=lora", "bits=1", "scale=0.1,1")
    expected = {("adaptformer", None): "5/5", ("lora", 0.1): "5/5", ("lora", 1.0): "5/5"}
    assert averages(tmp_path) == expected
    assert (
        "| adaptformer | 16 | 1 | - |"
        in quickly("report", "--store", tmp_path, "--format", "markdown").stdout
    )


def test_a_task_that_its_suite_does_not_have_is_named_and_counts_nowhere(tmp_path: Path) -> None:
    fill(tmp_path, "adapter=linear")
    (spec, *_) = plan(["sweep=none", *FULL, "adapter=linear"]).runs
    strange = dataclasses.replace(spec, task=dataclasses.replace(spec.task, name="extra"))
    Store(tmp_path).put(strange, make_row(strange, 0.5, bytes(50_000)), bytes(50_000))
    assert "left out: extra" in warnings(tmp_path)
    content = json.loads(quickly("report", "--store", tmp_path, "--format", "json").stdout)
    (line,) = content["averages"]
    assert (line["tasks"], line["bytes_file"]) == ("5/5", len(b"adapter"))


def test_nothing_but_such_tasks_is_no_table_and_said(tmp_path: Path) -> None:
    (spec, *_) = plan(["sweep=none", *FULL, "adapter=linear"]).runs
    strange = dataclasses.replace(spec, task=dataclasses.replace(spec.task, name="extra"))
    Store(tmp_path).put(strange, make_row(strange, 0.5), b"adapter")
    for form in ("text", "markdown", "latex", "json", "html"):
        done = quickly("report", "--store", tmp_path, "--format", form)
        assert done.returncode == 0, done.stderr
        assert "left out: extra" in done.stdout


def test_a_task_in_two_groups_is_one_column(tmp_path: Path) -> None:
    (spec,) = plan(["sweep=none", "task=folder", "adapter=linear"]).runs
    for group in ("a", "b"):
        own = dataclasses.replace(spec.task, name="mine", group=group, classes=2, splits={"test": 4})
        run = dataclasses.replace(spec, task=own, seed=ord(group))
        Store(tmp_path).put(run, make_row(run, 0.5), b"adapter")
    content = json.loads(quickly("report", "--store", tmp_path, "--format", "json").stdout)
    assert [(cell["task"], cell["n"]) for cell in content["rows"]] == [("mine", 2)]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("acc", "NaN", "acc is nan"),
        ("acc", "null", "acc is None, it must be float or int"),
        ("acc", '"0.5"', "acc is '0.5'"),
        ("acc", "1e400", "acc is inf"),
        ("acc", "55.0", "acc is 55.0, it must be a fraction from 0 to 1"),
        ("seed", "true", "seed is True, it must be int"),
        ("git_dirty", "0", "git_dirty is 0, it must be bool"),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_row_with_values_that_cannot_be_is_damaged(
    form: str, column: str, value: str, said: str, tmp_path: Path
) -> None:
    (spec,) = plan(["sweep=none", "task=digits", "adapter=linear", "protocol=fixed"]).runs
    row = make_row(spec, 0.5)
    Store(tmp_path).put(spec, row, b"adapter")
    path = tmp_path / row.run_id / ROW
    held = json.loads(path.read_text())
    path.write_text(json.dumps(held | {column: "HERE"}).replace('"HERE"', value))
    message = error_of(quickly("report", "--store", tmp_path, "--format", form))
    assert str(path) in message
    assert said in message


def test_many_tasks_with_long_names_are_all_printed_whole(tmp_path: Path) -> None:
    (spec,) = plan(["sweep=none", "task=folder", "adapter=linear"]).runs
    names = [f"my_hospital_department_ward_number_{number:03}" for number in range(60)]
    for name in names:
        own = dataclasses.replace(spec.task, name=name, classes=2, splits={"test": 4}, fingerprint=name)
        run = dataclasses.replace(spec, task=own)
        Store(tmp_path).put(run, make_row(run, 0.5), b"adapter")
    text = quickly("report", "--store", tmp_path).stdout
    assert all(name in text for name in names)
    assert "…" not in text
    assert max(map(len, text.splitlines())) < 4000  # as wide as the table, not padded


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (spec,) = plan(["sweep=none", "task=folder", "adapter=linear"]).runs
    own = dataclasses.replace(spec.task, name="red\x1b[31m\nnew\u2028line", classes=2, splits={"test": 4})
    run = dataclasses.replace(spec, task=own)
    Store(tmp_path).put(run, make_row(run, 0.5), b"adapter")
    for form in ("text", "markdown"):
        text = quickly("report", "--store", tmp_path, "--format", form).stdout
        assert not {"\x1b", "\u2028"} & set(text)
        assert "red [31m new line" in text


# outputs


def test_an_output_that_is_a_link_stays_one(tmp_path: Path) -> None:
    fill(tmp_path / "store", "adapter=linear")
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "real.md").chmod(0o600)
    (tmp_path / "latest.md").symlink_to("real.md")
    done = quickly("report", "--store", tmp_path / "store", "--out", tmp_path / "latest.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "latest.md").is_symlink()
    assert "linear" in (tmp_path / "real.md").read_text()
    assert (tmp_path / "real.md").stat().st_mode & 0o777 == 0o600


def test_a_device_as_output_adds_to_where_stdout_goes(tmp_path: Path) -> None:
    fill(tmp_path / "store", "adapter=linear")
    (tmp_path / "log").write_text("before\n")
    with (tmp_path / "log").open("a") as log:
        command = [SCRIPT, "report", "--store", str(tmp_path / "store"), "--out", "/dev/stdout"]
        processes.run(command, stdout=log, stderr=subprocess.DEVNULL, check=True)
    kept = (tmp_path / "log").read_text()
    assert kept.startswith("before\n")
    assert "linear" in kept


def test_a_terminal_that_lacks_a_character_is_told_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path, "adapter=linear")
    done = petl("report", "--store", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "linear" in done.stdout
    assert "warning: stdout has the encoding ascii" in done.stderr
    assert "--out" in done.stderr


def test_a_store_that_is_a_file_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    assert "is a file" in error_of(quickly("report", "--store", tmp_path / "store"))
