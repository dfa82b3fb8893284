"""Doubters: each cheats as somebody could who wants a better number, and finds the trace that it leaves."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest

from petl_bench.config import CONF_DIR, plan
from petl_bench.run.metadata import recipe_hash
from petl_bench.store import Store
from petl_bench.types import Origin
from tests.conftest import make_row, quickly, rows_of

MARK = "‡"


def stamp(group: str, name: str) -> str:
    """The name of a file of conf/ with the first 12 digits of its SHA-256."""
    digest = hashlib.sha256((CONF_DIR / group / f"{name}.yaml").read_bytes()).hexdigest()
    return f"conf/{group}/{name}.yaml {digest[:12]}"


TUNED, RECIPE = stamp("tuned", "pocket"), stamp("train", "pocket")
FIXED = ["sweep=none", "task=digits", "adapter=lora", "protocol=fixed"]
SEALED = ["sweep=none", "task=digits", "adapter=lora"]


@pytest.mark.parametrize(
    ("overrides", "scale", "lr"),
    [
        (FIXED, TUNED, RECIPE),
        ([*FIXED, "scale=10"], "command line", RECIPE),  # the value, and so the id, of the tuned run
        ([*FIXED, "train.lr=0.01"], TUNED, "command line"),
        ([*FIXED, "tuned.tables=[{scales:{digits:1},lrs:{digits:0.1}}]"], "command line", "command line"),
        ([*FIXED[:2], "adapter=linear", "protocol=fixed"], "method", TUNED),
        ([*FIXED[:2], "adapter=adapter_plus", "protocol=fixed"], "learned", TUNED),
        ([*FIXED, "train=vtab"], TUNED, stamp("train", "vtab")),
        (["task=digits", "adapter=lora", "bits=1"], TUNED, RECIPE),  # sweep=demo
        (SEALED, "search on val", RECIPE),
        ([*SEALED, "protocol.lrs=[0.1,0.2]"], "search on val", "search on val"),
        ([*SEALED, "scale=10"], "command line", RECIPE),
        ([*SEALED, "protocol.scales=[10]", "protocol.lrs=[0.1]"], "command line", "command line"),
    ],
)
def test_a_run_knows_where_its_values_come_from(overrides: list[str], scale: str, lr: str) -> None:
    assert plan(overrides).origins == [Origin(scale, lr)]


def test_rows_state_where_their_values_come_from(finished_store: Path) -> None:
    rows = rows_of(finished_store)
    assert {row["scale_from"] for row in rows} == {TUNED, "method"}
    assert {row["lr_from"] for row in rows} == {TUNED, RECIPE}


def keep(root: Path, *overrides: str, **changes: object) -> None:
    """Store made-up runs, each with the origins of its plan."""
    planned = plan(list(overrides))
    for number, (spec, origin) in enumerate(zip(planned.runs, planned.origins, strict=True)):
        own = {"scale_from": origin.scale, "lr_from": origin.lr, "recipe": recipe_hash(spec)}
        row = make_row(spec, number / 8, **own | changes)
        Store(root).put(spec, row, b"adapter")


def report(root: Path, form: str, *filters: str) -> str:
    chosen = [part for text in filters for part in ("--filter", text)]
    done = quickly("report", "--store", root, "--format", form, *chosen)
    assert done.returncode == 0, done.stderr
    return done.stdout


def variants(root: Path, *filters: str) -> dict[str, int]:
    """The number of variants of each adapter's cells."""
    content = json.loads(report(root, "json", *filters))
    return {cell["adapter"]: cell["variants"] for cell in content["rows"] if cell["n"]}


TRIED = [
    (["scale=0.1,1,10"], "scale=10", "scale (0.1, 1, 10)"),
    (["scale=1", "train.lr=0.1,0.2,0.3"], "lr=0.3", "learning rate (0.1, 0.2, 0.3)"),
    (["scale=1", "train.epochs=3,4,5"], "epochs=5", "epochs (3, 4, 5)"),
]


@pytest.mark.parametrize("protocol", ["fixed", "peek"])
@pytest.mark.parametrize(("tried", "shown", "differ"), TRIED)
def test_values_that_were_tried_are_counted_whatever_the_filter_shows(
    protocol: str, tried: list[str], shown: str, differ: str, tmp_path: Path
) -> None:
    """The doubter tries three values, shows the one that is best on test, and hides the others."""
    peek = {"acc_best_peek": 0.5} if protocol == "peek" else {}
    keep(tmp_path, *FIXED[:3], f"protocol={protocol}", *tried, **peek)
    assert variants(tmp_path, shown) == {"lora": 3}
    warnings = "; ".join(json.loads(report(tmp_path, "json", shown))["warnings"])
    assert f"3 variants, which differ in {differ}" in warnings
    assert f"only runs with {shown} are shown: 1 of 3" in warnings


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html", "csv"])
def test_every_form_marks_what_was_tried(form: str, three: Path) -> None:
    text = report(three, form, "scale=10")
    if form == "csv":
        assert [line["variants"] for line in csv.DictReader(io.StringIO(text))] == ["3"]
        return
    mark = r"{\textdaggerdbl}" if form == "latex" else MARK
    assert len(re.findall(rf"\d\.\d(</\w+>)? {re.escape(mark)}", text)) >= 2  # the cell and its averages
    assert "3 variants, which differ in scale (0.1, 1, 10)" in text
    assert "only runs with scale=10 are shown: 1 of 3" in text


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("three")
    keep(root, *FIXED, "scale=0.1,1,10")
    return root


def test_one_value_for_each_seed_is_several_values_too(tmp_path: Path) -> None:
    keep(tmp_path, *FIXED, "scale=1", "seed=0")
    keep(tmp_path, *FIXED, "scale=10", "seed=1")
    keep(tmp_path, *FIXED[:2], "adapter=adaptformer", "protocol=fixed", "seed=0,1")  # one value: no mark
    assert variants(tmp_path) == {"lora": 2, "adaptformer": 1}


def test_values_given_on_the_command_line_are_said(tmp_path: Path) -> None:
    keep(tmp_path, *FIXED, "seed=0")
    keep(tmp_path, *FIXED, "scale=10", "seed=1")
    assert "the scale of 1 of 2 runs was given on the command line" in report(tmp_path, "text")
