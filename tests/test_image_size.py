"""The size of the input in rows and reports: runs of two sizes are two lines, older rows know theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.store import ADAPTER, ROW, SPEC, Store
from petl_bench.types import ResultRow, row_to_dict
from tests.conftest import json_lines, quickly
from tests.made import make_row

SIZES = (32, 64, 96)


def put(root: Path, sizes: tuple[int, ...], protocol: str) -> list[ResultRow]:
    """Keep one finished run of each size, with an accuracy that tells its size."""
    store, rows = Store(root), []
    sealed = "protocol.scales=[1,10]" if protocol == "sealed" else "scale=1"
    for size in sizes:
        overrides = ["sweep=none", "task=digits", f"protocol={protocol}", sealed]
        (spec,) = plan([*overrides, f"backbone.image_size={size}"]).runs
        changes = {"acc_best_peek": size / 100} if protocol == "peek" else {}
        rows.append(make_row(spec, size / 100, **changes))
        store.put(spec, rows[-1], b"adapter")
    return rows


def forget(row: Path) -> None:
    """Make a row one of the time before the column."""
    values = json.loads(row.read_text())
    del values["image_size"]
    row.write_text(json.dumps(values))


@pytest.mark.parametrize("protocol", ["fixed", "sealed", "peek"])
def test_each_size_has_a_line_of_its_own(tmp_path: Path, protocol: str) -> None:
    put(tmp_path, SIZES, protocol)
    done = quickly("report", "--store", tmp_path, "--format", "json")
    content = json.loads(done.stdout)
    digits = [cell for cell in content["rows"] if cell["task"] == "digits"]
    assert {cell["image_size"]: cell["mean"] for cell in digits} == {size: size / 100 for size in SIZES}
    assert not any("several runs of the same seed" in warning for warning in content["warnings"])
    text = quickly("report", "--store", tmp_path).stdout
    assert "image_size" in text  # a column, since the rows differ in it
    only = quickly("report", "--store", tmp_path, "--filter", "image_size=64").stdout
    assert "image size 64" in only  # in the title, since all rows have it


def test_older_rows_have_the_size_of_their_spec_or_a_blank(tmp_path: Path) -> None:
    known, lost, new = put(tmp_path, SIZES, "fixed")
    for row in (known, lost):
        forget(tmp_path / row.run_id / ROW)
    (tmp_path / lost.run_id / SPEC).unlink()
    found = {row.run_id: row.image_size for row in Store(tmp_path).rows()}
    assert found == {known.run_id: SIZES[0], lost.run_id: None, new.run_id: SIZES[2]}
    content = json.loads(quickly("report", "--store", tmp_path, "--format", "json").stdout)
    digits = [cell for cell in content["rows"] if cell["task"] == "digits"]
    assert [(cell["image_size"], cell["n"]) for cell in digits] == [(None, 1), (32, 1), (96, 1)]
    assert quickly("report", "--store", tmp_path, "--format", "csv").returncode == 0


def test_the_check_of_a_store_compares_the_size_with_the_spec(tmp_path: Path) -> None:
    (row,) = put(tmp_path, SIZES[:1], "fixed")
    path = tmp_path / row.run_id / ROW
    path.write_text(json.dumps(row_to_dict(row) | {"image_size": 33}))
    assert "image_size" in quickly("store", "check", "--store", tmp_path).stdout


@pytest.mark.parametrize(
    "change", ["backbone.image_size=16", "backbone.label=mine", "backbone.options.depth=2"]
)
def test_a_file_holds_what_its_backbones_label_does_not_say(tmp_path: Path, change: str) -> None:
    """`eval` takes the architecture and size of a label from conf/backbone; these runs have others."""
    arguments = ["sweep=none", "task=digits", "adapter=linear", "train.epochs=1", "launcher=local", change]
    if "options" in change:
        arguments += ["backbone.weights=random"]
    done = quickly("sweep", "--store", tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    alone = shutil.copy(tmp_path / row["run_id"] / ADAPTER, tmp_path.parent / f"{row['run_id']}.safetensors")
    (bare,) = json_lines(quickly("eval", alone, "--json").stdout)
    assert bare["acc"] == row["acc"]
    assert quickly("store", "check", "--store", tmp_path).returncode == 0
