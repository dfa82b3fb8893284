"""Doubters: each cheats as somebody could who wants a better number, and finds the trace that it leaves."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from petl_bench.config import CONF_DIR, plan
from petl_bench.run.metadata import recipe_hash
from petl_bench.store import ADAPTER, ROW, SPEC, Store, with_digests
from petl_bench.store.check import Run
from petl_bench.types import Origin, digest_of
from tests.conftest import error_of, quickly, rows_of
from tests.made import make_row

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
        (["task=digits", "adapter=lora", "bits=1", "preset=released"], TUNED, RECIPE),  # sweep=default
        ([*FIXED, "preset=compact"], stamp("tuned", "pocket_compact"), RECIPE),
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
        Store(root).put(spec, with_digests(row, spec), b"adapter")


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


# sealed: repeated with other values to search until the result pleases

GRIDS = ["[0.01,0.1,1,10,100]", "[0.1,1]", "[1,10]"]


def test_other_grids_are_lines_of_their_own_and_counted(tmp_path: Path) -> None:
    for grid in GRIDS:
        keep(tmp_path, *SEALED, f"protocol.scales={grid}")
    keep(tmp_path, *SEALED, "scale=1")  # no search at all, under the name of sealed
    content = json.loads(report(tmp_path, "json"))
    lines = {line["searched"] for line in content["averages"]}
    assert lines == {"scale 0.01 0.1 1 10 100", "scale 0.1 1", "scale 1 10", "scale 1 given"}
    assert {cell["variants"] for cell in content["rows"] if cell["n"]} == {4}
    assert not any("the latest run" in warning for warning in content["warnings"])
    assert variants(tmp_path, "protocol.scales=[0.1,1]") == {"lora": 4}


@pytest.mark.parametrize(
    "other", ["train.epochs=9", "train=vtab", "protocol.rungs=[0.5]", "protocol.lrs=[0.1,0.2]"]
)
def test_a_sealed_run_that_is_repeated_otherwise_is_counted(other: str, tmp_path: Path) -> None:
    keep(tmp_path, *SEALED)
    keep(tmp_path, *SEALED, other)
    assert variants(tmp_path) == {"lora": 2}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("bits=1,4", {1, 4}),
        ("bits=4,32", {4, 32}),
        ("bits=range(1,5)", None),  # no run has 2 bits
        ("protocol.scales=[0.1,1.0]", {4}),
        ("protocol.scales=[0.1,1],[]", {1, 4, 32}),
        ("train.weight_decay=1e-4", {1, 4, 32}),
        ("adapter.dropout=0.5", {32}),
        ("task=glob(dig*)", {1, 4, 32}),
        ("backbone.name=nothing", None),
    ],
)
def test_filters_reach_every_key_and_take_lists(wanted: str, found: set[int] | None, mixed: Path) -> None:
    done = quickly("report", "--store", mixed, "--format", "csv", "--filter", wanted)
    if found is None:
        assert "no row has it" in error_of(done)
    else:
        assert {int(line["bits"]) for line in csv.DictReader(io.StringIO(done.stdout))} == found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    keep(root, *FIXED, "scale=1", "bits=1")
    keep(root, *SEALED, "protocol.scales=[0.1,1]", "bits=4")
    keep(root, *FIXED, "scale=1", "bits=32", "adapter.dropout=0.5")
    return root


# rows and files that were edited


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def old(run: Path) -> None:
    """Make a row what an earlier version wrote: without digests and origins."""
    values = json.loads((run / ROW).read_text())
    for name in ("digest", "spec_digest", "scale_from", "lr_from", "searched"):
        del values[name]
    (run / ROW).write_text(json.dumps(values))


CHEATS: dict[str, tuple[Callable[[Path], object], str]] = {
    "accuracy": (lambda run: edited(run / ROW, acc=0.875), "changed after it was written"),
    "accuracy and no digest": (lambda run: edited(run / ROW, acc=0.875, digest=""), "no digest"),
    "bits": (lambda run: edited(run / ROW, bits=1), "changed after it was written"),
    "origin": (lambda run: edited(run / ROW, scale_from="search on val"), "changed after it was written"),
    "spec": (lambda run: edited(run / SPEC, bits=1), "spec.json is missing, or was changed"),
    "spec gone": (lambda run: (run / SPEC).unlink(), "spec.json is missing, or was changed"),
    "smaller file": (lambda run: os.truncate(run / ADAPTER, 3), "bytes_file is 7, but 3"),
    "old accuracy": (lambda run: (old(run), edited(run / ROW, acc=0.9901)), "no fraction of"),
    "old bytes": (lambda run: (old(run), edited(run / ROW, bytes_head=1)), "its parts are"),
    "old bits": (lambda run: (old(run), edited(run / ROW, bits=1)), "bits is 1, but 4"),
    "old spec": (lambda run: (old(run), edited(run / SPEC, quantizer="minmax")), "quantizer is"),
    "old recipe": (lambda run: (old(run), other_decay(run)), "spec.json is that of run"),
}


def other_decay(run: Path) -> None:
    train = json.loads((run / SPEC).read_text())["train"]
    edited(run / SPEC, train=train | {"weight_decay": 0.5})


@pytest.mark.parametrize("name", list(CHEATS))
def test_what_was_edited_is_printed_nowhere(name: str, tmp_path: Path) -> None:
    keep(tmp_path, *FIXED, "bits=4", "seed=0,1")
    cheat, said = CHEATS[name]
    row = next(row for row in rows_of(tmp_path) if row["seed"] == 1)
    cheat(tmp_path / row["run_id"])
    done = quickly("report", "--store", tmp_path, "--format", "csv")
    assert done.returncode == 0
    assert [line["seed"] for line in csv.DictReader(io.StringIO(done.stdout))] == ["0"]
    assert "1 damaged run" in done.stderr
    assert said in done.stderr
    assert Store(tmp_path).state(row["run_id"]) == "damaged"  # a sweep says so and leaves it


def test_old_rows_are_read_as_before(tmp_path: Path) -> None:
    keep(tmp_path, *SEALED, "seed=0,1")
    for row in rows_of(tmp_path):
        old(tmp_path / row["run_id"])
    found = [*Store(tmp_path).rows()]
    assert [row.searched for row in found] == ["scale 0.01 0.1 1 10 100"] * 2  # from the spec
    assert [row.scale_from for row in found] == ["", ""]


TRIALS = [
    {"scale": scale, "lr": 0.005, "epochs": 6, "acc_val": acc_val}
    for scale, acc_val in ((0.1, 0.5), (1.0, 0.75), (10.0, None))
]
"""The last one diverged."""


@pytest.mark.parametrize(
    ("edits", "named"),
    [
        ([], False),
        ([(1, {"acc_val": 0.25})], True),  # the winner's
        ([(0, {"acc_val": 0.875})], True),  # a loser would have won
        ([(1, {"scale": 2.0})], True),
        ([(0, {"acc_val": 0.625})], False),  # nothing contradicts it
    ],
)
def test_a_search_that_is_not_that_of_its_row_is_named(
    edits: list[tuple[int, dict[str, float]]], named: bool, tmp_path: Path
) -> None:
    (spec,) = plan([*SEALED, "protocol.scales=[0.1,1,10]"]).runs
    row = with_digests(make_row(spec, 0.5, scale=1.0, lr=0.005, acc_val=0.75), spec)
    trials = [dict(trial) for trial in TRIALS]
    for number, changes in edits:
        trials[number] |= changes
    Store(tmp_path).put(spec, row, b"adapter", trials)
    run = Run(Store(tmp_path), row.run_id)
    run.examine()
    assert ("search" in {problem.kind for problem in run.problems}) is named


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("source_adapter", "00000000", "the source code of its adapter"),
        ("source_training", "00000000", "the source code of its training"),
        ("scale_from", "conf/tuned/pocket.yaml 000000000000", "conf/tuned/pocket.yaml"),
        ("lr_from", "conf/train/gone.yaml 000000000000", "conf/train/gone.yaml"),
    ],
)
def test_a_store_that_other_code_or_tables_have_made_is_seen_where_it_is_checked(
    column: str, value: str, said: str, store_copy: Path
) -> None:
    """The doubter edits a method or a tuned table, sweeps, and hands over the store alone."""
    row = next(row for row in rows_of(store_copy) if row["adapter"] == "lora")
    changed = row | {column: value}
    edited(store_copy / row["run_id"] / ROW, **changed | {"digest": digest_of(changed)})
    checked = quickly("store", "check", "--store", store_copy)
    assert checked.returncode == 0  # it is no damage
    assert f"{row['run_id']}: changed: " in checked.stdout
    assert f"{said} is not that of this petl-bench" in checked.stdout
    assert "notes: changed 1" in checked.stdout
    shown = quickly("show", row["run_id"], "--store", store_copy)
    assert f"{said} is not that of this petl-bench" in shown.stdout
