"""Protocols sealed, fixed and peek on a small task in the layout of VTAB-1K."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.config import plan
from petl_bench.run.execute import execute
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.run.training import select, train
from petl_bench.store import ADAPTER, Store
from petl_bench.types import Cache, RunSpec, Runtime
from tests import trees
from tests.conftest import call, json_lines, quickly

TASK = "vtab_clevr_count"
CLASSES = 8
SIZES = {"train": 128, "val": 64, "test": 64}
SETTINGS = {
    "sweep": "none",
    "task": TASK,
    "hidden": "4",
    "bits": "1",
    "train.epochs": "2",
    "train.batch_size": "32",
    "train.warmup_epochs": "0",
    "train.lr": "5e-3",
    "launcher": "local",
}


@dataclass(frozen=True)
class Tree:
    """A data root, the file that says its sizes, and a cache that knows nothing of it yet."""

    root: Path
    override: Path
    cache: Path

    def settings(self, **changes: object) -> list[str]:
        """Overrides of a small run; `protocol__scales="[1]"` stands for protocol.scales=[1]."""
        own = {"data.root": self.root, "data.override": self.override, "data.cache": self.cache}
        values = SETTINGS | own | {key.replace("__", "."): value for key, value in changes.items()}
        return [f"{key}={value}" for key, value in values.items()]

    def spec(self, **changes: object) -> RunSpec:
        """One planned run with its data found and hashed."""
        (spec,) = resolve_tasks(plan(self.settings(**changes)).runs, Cache(str(self.cache)))
        return spec

    def runtime(self, store: Path | str = "") -> Runtime:
        return Runtime(str(store), cache=Cache(str(self.cache)))


def made(folder: Path, sizes: dict[str, int] = SIZES) -> Tree:
    trees.vtab_task(folder / "root/clevr_count", CLASSES, sizes)
    override = folder / "override.yaml"
    override.write_text(yaml.safe_dump({TASK: {"splits": sizes}}))
    return Tree(folder / "root", override, folder / "cache")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return made(tmp_path_factory.mktemp("vtab"))


@dataclass(frozen=True)
class Kept:
    """A finished sealed run: its store, row and trials."""

    store: Path
    row: dict
    trials: list[dict]


def sealed_run(tree: Tree, store: Path, **changes: object) -> Kept:
    done = quickly("sweep", "--store", store, *tree.settings(protocol="sealed", **changes), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    return Kept(store, row, json.loads((store / row["run_id"] / "search.json").read_text())["trials"])


@pytest.fixture(scope="module")
def searched(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Three scales and two rates, none in order."""
    store = tmp_path_factory.mktemp("sealed") / "store"
    return sealed_run(tree, store, protocol__scales="[100,0.01,10]", protocol__lrs="[5e-3,1e-3]")


# sealed


def test_every_candidate_is_tried_and_the_best_on_val_wins(searched: Kept) -> None:
    tried = [(trial["scale"], trial["lr"]) for trial in searched.trials]
    assert sorted(tried) == sorted(itertools.product([0.01, 10.0, 100.0], [1e-3, 5e-3]))
    accuracies = [trial["acc_val"] for trial in searched.trials]
    assert all((accuracy * SIZES["val"]).is_integer() for accuracy in accuracies)  # counted over val
    assert len(set(accuracies)) > 2  # else this test would say little
    best = min(
        (trial for trial in searched.trials if trial["acc_val"] == max(accuracies)),
        key=lambda trial: (trial["scale"], trial["lr"]),
    )
    row = searched.row
    assert {key: row[key] for key in ("scale", "lr", "epochs", "acc_val")} == best
    assert (row["protocol"], row["acc_best_peek"]) == ("sealed", None)
    assert (row["n_train"], row["n_test"]) == (SIZES["train"] + SIZES["val"], SIZES["test"])


def test_val_accuracies_are_those_of_models_that_never_saw_val(
    searched: Kept, tree: Tree, tmp_path: Path
) -> None:
    """The same numbers from a task of the user's own: all its training images are train, its test is val."""
    folder, original = tmp_path / "own", tree.root / "clevr_count"
    folder.mkdir()
    (folder / "images").symlink_to(original / "images")
    lines = (original / "train800.txt").read_text().splitlines(keepends=True)
    for name, part in {"train800": lines[:-8], "val200": lines[-8:], "train800val200": lines}.items():
        (folder / f"{name}.txt").write_text("".join(part))
    shutil.copy(original / "val200.txt", folder / "test.txt")
    own = {"task": "folder", "data__root": folder, "data__override": "", "protocol": "fixed"}
    axes = {"scale": "0.01,10,100", "train__lr": "1e-3,5e-3"}
    done = quickly("sweep", "--store", tmp_path / "store", *tree.settings(**own, **axes), "--json")
    assert done.returncode == 0, done.stderr
    rows = json_lines(done.stdout)
    assert [(row["n_train"], row["n_test"]) for row in rows] == [(SIZES["train"], SIZES["val"])] * 6
    expected = {(row["scale"], row["lr"]): row["acc"] for row in rows}
    assert {(trial["scale"], trial["lr"]): trial["acc_val"] for trial in searched.trials} == expected


def test_the_final_model_is_that_of_protocol_fixed_with_the_winners_settings(
    searched: Kept, tree: Tree, tmp_path: Path
) -> None:
    chosen = {"scale": searched.row["scale"], "train__lr": searched.row["lr"]}
    done = quickly("sweep", "--store", tmp_path, *tree.settings(protocol="fixed", **chosen), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    file = (tmp_path / row["run_id"] / ADAPTER).read_bytes()
    assert (searched.store / searched.row["run_id"] / ADAPTER).read_bytes() == file
    assert row["acc"] == searched.row["acc"]
    assert row["acc_val"] is None


def test_the_smaller_scale_then_the_smaller_rate_wins_a_tie(tmp_path: Path) -> None:
    """Training and val images are all of class 0, so that every candidate has all of val right."""
    folder = tmp_path / "root/clevr_count"
    trees.vtab_task(folder, CLASSES, SIZES, seen=1)
    (tmp_path / "override.yaml").write_text(yaml.safe_dump({TASK: {"splits": SIZES}}))
    tree = Tree(tmp_path / "root", tmp_path / "override.yaml", tmp_path / "cache")
    spec = tree.spec(protocol__scales="[10,0.1,1]", protocol__lrs="[5e-2,2e-2]", train__epochs=3)
    choice = select(spec, tree.runtime())
    assert [trial["acc_val"] for trial in choice.trials] == [1.0] * 6
    assert (choice.spec.scale, choice.spec.train.lr) == (0.1, 2e-2)


POSITIVE = st.floats(1e-6, 1e6)


@cache
def planned(tree: Tree) -> RunSpec:
    return tree.spec(protocol="sealed")


@given(
    scales=st.lists(POSITIVE, min_size=1, max_size=4, unique=True),
    rates=st.lists(POSITIVE, max_size=3, unique=True),
)
def test_candidates_are_all_pairs_in_ascending_order(
    tree: Tree, scales: list[float], rates: list[float]
) -> None:
    spec = planned(tree)
    spec = dataclasses.replace(spec, protocol=dataclasses.replace(spec.protocol, scales=scales, lrs=rates))
    found = [(candidate.scale, candidate.train.lr) for candidate in spec.candidates]
    assert found == sorted(itertools.product(scales, rates or [spec.train.lr]))
    others = [dataclasses.replace(c, scale=None, train=spec.train) for c in spec.candidates]
    assert all(other == spec for other in others)  # nothing else differs


def test_a_candidate_that_diverges_has_no_accuracy_and_does_not_win(tree: Tree, tmp_path: Path) -> None:
    kept = sealed_run(tree, tmp_path, protocol__scales="[1e38,1]", protocol__lrs="[5e-3,1e30]")
    trials = {(trial["scale"], trial["lr"]): trial["acc_val"] for trial in kept.trials}
    assert len(trials) == 4
    good = trials.pop((1.0, 5e-3))
    assert good is not None
    assert set(trials.values()) == {None}
    assert (kept.row["scale"], kept.row["lr"], kept.row["acc_val"]) == (1.0, 5e-3, good)


def test_a_candidate_that_diverges_in_its_last_step_does_not_win(tree: Tree) -> None:
    """One step in all: its loss is the initial model's, and then the rate of 1e30 ruins the weights."""
    spec = tree.spec(scale=1, protocol__lrs="[1e-3,1e30]", train__epochs=1, train__batch_size=SIZES["train"])
    ruined = train(spec.candidates[1], tree.runtime(), split="train").adapted.network.eval()
    with torch.inference_mode():
        assert not torch.isfinite(ruined(torch.zeros(1, 3, 32, 32))).all()  # what is claimed above
    choice = select(spec, tree.runtime())
    assert [trial["acc_val"] is None for trial in choice.trials] == [False, True]
    assert choice.spec.train.lr == 1e-3


def test_a_search_in_which_all_diverge_fails_with_the_way_out(
    tree: Tree, tmp_path: Path, capsys, monkeypatch
) -> None:
    overrides = tree.settings(protocol__scales="[1e38,1e37]")
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path, *overrides)
    assert done.returncode == 1
    assert "FAILED: every candidate of protocol=sealed diverges: lower protocol.scales" in done.stderr
    assert "Traceback" not in done.stderr
    (directory,) = (path for path in tmp_path.glob("[!.]*") if path.is_dir())
    assert Store(tmp_path).state(directory.name) == "failed"
    assert not (directory / ADAPTER).exists()


@pytest.mark.parametrize("chosen", [{"scale": 1}, {"adapter": "linear"}, {"protocol__scales": "[1]"}])
def test_nothing_to_choose_means_no_search(tree: Tree, tmp_path: Path, chosen: dict[str, object]) -> None:
    spec = tree.spec(protocol="sealed", **chosen)
    row = execute(job_of(spec), tree.runtime(tmp_path))
    assert (row.protocol, row.scale, row.acc_val) == ("sealed", 1.0, None)
    assert not (tmp_path / row.run_id / "search.json").exists()
    log = (tmp_path / row.run_id / "run.log").read_text()
    assert "acc on val" not in log
