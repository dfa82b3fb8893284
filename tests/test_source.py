"""Digests of source code: what changes them, what does not, and what sweep, eval and report make of them."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from petl_bench.config import options, plan
from petl_bench.run import source
from petl_bench.store import Store
from petl_bench.types import HEAD_QUANTIZER, RunSpec, row_to_dict
from tests.conftest import SWEEP, json_lines, quickly
from tests.made import make_row

Edit = Callable[[str, str, str], None]
Digests = dict[str, dict[str, str]]
PARTS = ("adapter", "quantizer", "head", "training")


@cache
def run_of(*overrides: str) -> RunSpec:
    return plan(["sweep=none", "task=digits", "scale=1", *overrides]).runs[0]


RUNS = {
    "lora": ("adapter=lora", "bits=1"),
    "lora 32": ("adapter=lora", "bits=32"),
    "lora minmax": ("adapter=lora", "bits=4", "quantizer=minmax"),
    "lora 32 binary head": ("adapter=lora", "bits=32", "head=binary"),
    "adaptformer": ("adapter=adaptformer", "bits=1"),
    "houlsby": ("adapter=houlsby", "bits=1"),
    "ssf": ("adapter=ssf", "bits=1"),
}


LORA = [name for name in RUNS if name.startswith("lora")]
L1_MEDIAN = ["lora", "lora 32 binary head", "adaptformer", "houlsby"]


def forget() -> None:
    source._method.cache_clear()
    source._shared.cache_clear()


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Replace text in a module of the package, as a process that starts after the edit reads it."""

    def replaced(path: str, old: str, new: str) -> None:
        assert old in source.TEXTS[path], "the test needs the text that it replaces"
        monkeypatch.setitem(source.TEXTS, path, source.TEXTS[path].replace(old, new))
        forget()

    forget()
    yield replaced
    monkeypatch.undo()
    forget()


def digests() -> Digests:
    return {name: source.sources(run_of(*overrides)) for name, overrides in RUNS.items()}


@pytest.fixture(scope="module")
def before() -> Digests:
    """Digests of the package as it is."""
    forget()
    return digests()


def differing(before: Digests) -> dict[str, set[str]]:
    """The parts whose digest has changed, by run."""
    after = digests()
    found = {name: {part for part in PARTS if before[name][part] != after[name][part]} for name in RUNS}
    return {name: parts for name, parts in found.items() if parts}


def test_digests_that_stand_for_earlier_ones_are_those_of_the_code_as_it_is() -> None:
    used = [("quantizer", name) for name in options("quantizer") if name != "none"]
    used += [("quantizer", *sorted({name, HEAD_QUANTIZER})) for _, name in used]
    used += [("head", name) for name in options("head")] + [("adapter", name) for name in options("adapter")]
    today = {source._digest_of(*names) for names in used} | {source._digest_of_modules("training")}
    assert source.SAME_NUMBERS.keys() <= today, "remove the entries of code that has changed since"


def test_every_option_has_a_digest_of_its_own() -> None:
    for part in ("adapter", "quantizer", "head"):
        found = [source._method(part, name) for name in options(part)]
        assert "" not in found
        assert len({*found}) == len(found)


EDITS = [
    # The scale of LoRA's update is squared.
    ("adapters/lora", "pe.scale, config", "pe.scale**2, config", "adapter", LORA),
    # What several methods share: the ranks of blocks.
    (
        "adapters/lowrank",
        "hidden * blocks, sum",
        "hidden * blocks + 1, sum",
        "adapter",
        [*LORA, "adaptformer"],
    ),
    # A base class of the settings of several presets.
    ("adapters/bottleneck", 'gate: str = "none"', 'gate: str = "large"', "adapter", ["houlsby"]),
    ("quantizers/minmax", "np.linspace(0.0, 1.0", "np.linspace(0.0, 2.0", "quantizer", ["lora minmax"]),
    ("quantizers/l1_median", "half = normal_density(threshold) / 2", "half = 1.0", "quantizer", L1_MEDIAN),
    # Fake quantization itself.
    ("quantizers/base", "return rho * gra", "return gra", "quantizer", [*L1_MEDIAN, "lora minmax"]),
    ("model/heads", "bias=False", "bias=True", "head", ["lora 32 binary head"]),
    ("train/loop", "import math", "import math\nSTEPS = 2", "training", RUNS),
    ("adapters/base", "consistency: float = 0.0", "consistency: float = 1.0", "training", RUNS),
]


@pytest.mark.parametrize(("path", "old", "new", "part", "runs"), EDITS, ids=lambda value: str(value)[:20])
def test_a_change_of_what_is_computed_is_seen_where_it_acts_and_only_there(
    before: Digests, edit: Edit, path: str, old: str, new: str, part: str, runs: Collection[str]
) -> None:
    edit(path, old, new)
    assert differing(before) == {name: {part} for name in runs}


def test_explanations_and_additions_change_no_digest(before: Digests, edit: Edit) -> None:
    edit("adapters/lora", "attached = Attached()", "attached = Attached()  # a comment")
    edit("adapters/lora", "Attach two pairs per block", "Attach both pairs per block")
    edit("adapters/lora", "Low-rank updates of the query", "Updates of low rank of the query")
    edit("adapters/lora", '"""Probability that', '"""The probability that')
    edit("adapters/lora", "rank: int) -> LowRank", "rank: float) -> LowRank")
    edit("adapters/lowrank", "share must be a number of blocks", "share has to be a number of blocks")
    edit("adapters/lowrank", "def pair(", "def another() -> int:\n    return 1\n\n\ndef pair(")
    preset = "class PfeifferConfig(BottleneckConfig):"
    edit("adapters/bottleneck", preset, f"{preset}\n    more: int = 1")
    edit("train/loop", "Callbacks of a training.", "Callbacks.")
    edit("report/lines", "BY_TASK = -1.0", "BY_TASK = -2.0")
    edit("store/runs", "import shutil", "import shutil\nUNUSED = 1")
    assert differing(before) == {}


def test_formatting_and_the_places_of_definitions_change_no_digest(
    before: Digests, monkeypatch: pytest.MonkeyPatch, edit: Edit
) -> None:
    for path, text in list(source.TEXTS.items()):
        if path.startswith(("adapters/", "quantizers/", "model/heads")):
            monkeypatch.setitem(source.TEXTS, path, ast.unparse(ast.parse(text)))  # without comments
    forget()
    assert differing(before) == {}
    tree = ast.parse(source.TEXTS["adapters/lowrank"])
    moved = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "pair"]
    tree.body = [node for node in tree.body if node not in moved]
    tree.body.append(ast.parse("from petl_bench.adapters.branches import pair").body[0])
    monkeypatch.setitem(source.TEXTS, "adapters/lowrank", ast.unparse(tree))
    added = f"\nfrom petl_bench import initialization\n{ast.unparse(moved[0])}\n"
    edit("adapters/branches", source.TEXTS["adapters/branches"], source.TEXTS["adapters/branches"] + added)
    assert differing(before) == {}


def test_a_sweep_takes_no_run_of_another_source_as_done_in_silence(
    finished_store: Path, tmp_path: Path, edit: Edit
) -> None:
    """The adapter's file is edited under the same name: said, kept by default, repeated where asked for."""
    store = shutil.copytree(finished_store, tmp_path / "store")
    row = next(row for row in Store(store).rows() if row.adapter != "linear" and row.task == "digits")
    spec = Store(store).spec(row.run_id)
    own = {f"source_{part}": digest for part, digest in source.sources(spec).items()}
    assert {name: getattr(row, name) for name in own} == own
    command = ["sweep", "--store", store, "--dry-run", "--json", "task=digits", f"adapter={row.adapter}"]

    def planned(*more: str) -> tuple[bool, str]:
        done = quickly(*command, *SWEEP[2:], *more)
        return {line["run_id"]: line["to_do"] for line in json_lines(done.stdout)}[row.run_id], done.stderr

    assert planned("--existing", "rerun-stale") == (False, "")
    edit(f"adapters/{row.adapter}", "shape.scale", "shape.scale * 2")
    again, said = planned()
    assert not again
    assert (
        f"source code has changed since runs were made (adapter {row.adapter}: 2 runs): they are kept" in said
    )
    again, said = planned("--existing", "rerun-stale")
    assert again
    assert "they are repeated" in said
    path, values = store / row.run_id / "row.json", row_to_dict(row)
    undated = dict.fromkeys(("digest", "spec_digest", "scale_from", "lr_from"), "")
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in own} | undated))
    assert not planned("--existing", "rerun-stale")[0], "nothing is known about an old row"
    path.write_text(json.dumps(values | undated | {"source_training": "00000000"}))
    edit(f"adapters/{row.adapter}", "shape.scale * 2", "shape.scale")
    again, said = planned("--existing", "rerun-stale")
    assert not again
    assert "training code that all methods share has changed since runs were made" in said


def test_eval_says_that_the_source_has_changed_where_it_disagrees(
    finished_store: Path, tmp_path: Path, edit: Edit
) -> None:
    store = shutil.copytree(finished_store, tmp_path / "store")
    row = next(row for row in Store(store).rows() if row.adapter != "linear")
    (store / row.run_id / "row.json").write_text(json.dumps(row_to_dict(replace(row, acc=row.acc / 2))))
    edit(f"adapters/{row.adapter}", "shape.scale", "shape.scale * 2")
    done = quickly("eval", row.run_id, "--store", store)
    assert done.returncode == 1
    assert "(source code changed since then: adapter)" in done.stdout


@pytest.mark.parametrize("column", ["source_adapter", "source_quantizer", "source_head"])
def test_a_report_keeps_runs_of_differing_source_apart_and_says_so(tmp_path: Path, column: str) -> None:
    store = Store(tmp_path / "store")
    store.create()

    def put(seed: int, acc: float, digest: str, bits: int = 1, adapter: str = "lora") -> None:
        spec = run_of(f"adapter={adapter}", f"bits={bits}", f"seed={seed}")
        store.put(spec, make_row(spec, acc, **{column: digest}), b"adapter")

    def reported() -> tuple[list[tuple[object, object, int]], str]:
        done = quickly("report", "--store", store.root, "--format", "json")
        cells = [cell for cell in json.loads(done.stdout)["rows"] if cell["task"] == "digits"]
        return [(c["adapter"], c.get(column), c["n"]) for c in cells if c["bits"] == 1], done.stderr

    put(0, 0.5, "aaaaaaaa")
    put(1, 0.6, "")  # an old row: unknown, and left in peace
    put(0, 0.7, "cccccccc", adapter="adaptformer")  # other methods have other source anyway
    rows, said = reported()
    assert rows == [("adaptformer", None, 1), ("lora", None, 2)]
    assert "different source code" not in said
    put(2, 0.9, "bbbbbbbb")
    rows, said = reported()
    assert {row[1:] for row in rows if row[0] == "lora"} == {("aaaaaaaa", 1), ("bbbbbbbb", 1), ("unknown", 1)}
    assert [row[1:] for row in rows if row[0] == "adaptformer"] == [("", 1)]
    part = column.removeprefix("source_")
    assert f"runs of lora were made by different source code of their {part}" in said
    assert "aaaaaaaa" in quickly("report", "--store", store.root).stdout
