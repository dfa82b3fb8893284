"""Successive halving: the search of protocol=sealed over fractions of the epochs, rung by rung."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.config import plan
from petl_bench.run import training
from petl_bench.run.execute import execute
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.run.search import search
from petl_bench.run.training import validate
from petl_bench.store import ADAPTER
from petl_bench.train import fit, learning_rate
from petl_bench.types import RunSpec, Runtime, run_id, spec_from_dict, spec_to_dict
from tests import trees
from tests.conftest import call, error_of, events_of
from tests.golden import FEW_SHOT_SETS
from tests.made import WEIGHTS
from tests.test_protocols import SIZES, Kept, Tree, made, sealed_run
from tests.test_specs import recipes

FIVE = ["sweep=none", "bits=1", "train.epochs=8"]
"""Eight epochs with two of warm-up, and five scales."""


def one(*overrides: str) -> RunSpec:
    own_recipe = any(override.startswith("train") for override in overrides)
    (spec,) = plan([*(FIVE[:-1] if own_recipe else FIVE), *overrides]).runs
    return spec


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return made(tmp_path_factory.mktemp("vtab"))


@pytest.fixture(scope="module")
def halved(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Run a search over four scales: all for one epoch, two for two epochs, and the best for four."""
    store = tmp_path_factory.mktemp("halved") / "store"
    changes = {"train__epochs": 4, "train__warmup_epochs": 2, "train__lr": 2e-2}
    scales = "[100,0.01,10,1]"
    return sealed_run(tree, store, protocol__scales=scales, protocol__rungs="[0.25,0.5]", **changes)


# Identity


def test_the_full_search_keeps_its_identity() -> None:
    spec = one()
    old = json.loads(json.dumps(spec_to_dict(spec)))
    assert old["protocol"].pop("rungs") == []
    assert spec_from_dict(old) == spec
    assert run_id(one("protocol.rungs=[1]"), WEIGHTS) == run_id(spec, WEIGHTS)  # which is the full search


def test_rungs_are_identity() -> None:
    rungs = ("[]", "[0.25]", "[0.5]", "[0.25,0.5]")
    assert len({run_id(one(f"protocol.rungs={text}"), WEIGHTS) for text in rungs}) == len(rungs)
    assert one("protocol.rungs=[0.5,0.25,0.5]") == one("protocol.rungs=[0.25,0.5]")


# Rungs, with accuracies made up


def tried(spec: RunSpec, accuracies: dict[tuple[float, int], float | None]) -> tuple[list, float | None]:
    """Return the trials (scale, epochs) of a search with the given accuracies, and the winner."""
    attempts = []

    def attempt(candidate: RunSpec) -> tuple[float | None, RunSpec]:
        assert candidate.scale is not None
        attempts.append((candidate.scale, candidate.train.epochs))
        return accuracies.get(attempts[-1], 0.5), candidate

    choice = search(spec, attempt)
    if choice is None:
        return attempts, None
    assert [(trial["scale"], trial["epochs"]) for trial in choice.trials] == attempts
    last = max(epochs for scale, epochs in attempts if scale == choice.spec.scale)
    assert choice.acc_val == accuracies.get((choice.spec.scale or 0, last), 0.5)
    assert choice.model is not None
    assert (choice.model.scale, choice.model.train.epochs) == (choice.spec.scale, last)
    assert replace(choice.spec, scale=None) == spec  # the winner has all its epochs
    return attempts, choice.spec.scale


def test_the_better_half_of_a_rung_goes_on() -> None:
    first = [(scale, 2) for scale in (0.01, 0.1, 1.0, 10.0, 100.0)]
    accuracies = {(0.1, 2): 0.7, (10.0, 2): 0.9, (100.0, 2): 0.6, (0.1, 4): 0.8, (10.0, 4): 0.75}
    assert tried(one("protocol.rungs=[0.25]"), accuracies) == (first, 10.0)
    second = [*first, (0.1, 4), (10.0, 4), (100.0, 4)]
    assert tried(one("protocol.rungs=[0.25,0.5]"), accuracies) == (second, 0.1)
    third = [*second, (0.1, 8), (10.0, 8)]
    assert tried(one("protocol.rungs=[0.25,0.5,1]"), accuracies | {(10.0, 8): 0.6}) == (third, 10.0)
    # Where one is left, it needs no more trials.
    two = "protocol.scales=[1,10]"
    assert tried(one(two, "protocol.rungs=[0.25,0.5]"), {(10.0, 2): 0.6}) == ([(1.0, 2), (10.0, 2)], 10.0)
    assert tried(one("protocol.rungs=[]"), accuracies)[0] == [(scale, 8) for scale, _ in first]


def test_the_smaller_scales_go_on_and_win_where_all_are_equal() -> None:
    attempts, winner = tried(one("protocol.rungs=[0.25,0.5]"), {})
    assert attempts[5:] == [(0.01, 4), (0.1, 4), (1.0, 4)]
    assert winner == 0.01


def test_what_diverges_goes_no_further() -> None:
    spec = one("protocol.rungs=[0.25,0.5]")
    only = {(scale, 2): None for scale in (0.01, 0.1, 1.0, 10.0)}
    assert tried(spec, only)[0][5:] == []
    assert tried(spec, only)[1] == 100.0
    assert tried(spec, {(0.01, 4): None})[1] == 0.1
    assert tried(spec, {(scale, 4): None for scale in (0.01, 0.1, 1.0)})[1] is None


@given(recipes, st.floats(0.01, 1))
def test_a_shorter_schedule_is_the_same_schedule(recipe, share: float) -> None:
    """A shorter training warms up for at most the same fraction of its epochs, and never for all of them."""
    if round(share * recipe.epochs) == 0:
        return
    short = recipe.shortened(share)
    assert short.epochs == round(share * recipe.epochs)
    assert short.warmup_epochs * recipe.epochs <= recipe.warmup_epochs * short.epochs
    assert short.schedule_lag <= recipe.schedule_lag
    if recipe.warmup_epochs < recipe.epochs:
        assert short.warmup_epochs < short.epochs
    assert replace(short, epochs=recipe.epochs, warmup_epochs=recipe.warmup_epochs) == replace(
        recipe, schedule_lag=short.schedule_lag
    )
    assert recipe.shortened(1.0) == recipe


def test_the_rates_of_a_quarter_of_vtabs_recipe() -> None:
    """Computed by hand for 25 epochs with 2 of warm-up and no lag: epoch 2 has the cosine at 2 / 25."""
    recipe = one("task=vtab_dtd", "train=vtab").train.shortened(0.25)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.schedule_lag) == (25, 2, 0)
    rates = [learning_rate(epoch, recipe) for epoch in (0, 1, 2, 24)]
    assert rates == pytest.approx([1e-6, 5.005e-4, 9.844e-4, 1.39e-5], rel=1e-3)


# Mistakes


@pytest.mark.parametrize(
    "rungs", ["[0.05]", "[0.25,0.26]", "[0.25,1.5]", "[0]", "[-1]", "[nan]", "[inf]", "0.25", "[a]"]
)
@pytest.mark.sampled(3)
def test_shares_that_make_no_rung_are_refused(rungs: str, tmp_path: Path, capsys, monkeypatch) -> None:
    arguments = [*FIVE, f"protocol.rungs={rungs}"]
    message = error_of(call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", *arguments))
    assert "rungs" in message
    if rungs.startswith("[") and rungs != "[a]":
        assert "shares of train.epochs=8, each at least one epoch" in message
    assert not (tmp_path / "store").exists()


def test_other_protocols_have_no_rungs(tmp_path: Path, capsys, monkeypatch) -> None:
    arguments = [*FIVE, "protocol=fixed", "protocol.rungs=[0.5]"]
    message = error_of(call(capsys, monkeypatch, "sweep", "--store", tmp_path, *arguments))
    assert "'protocol.rungs' is no setting of protocol=fixed" in message


# Real runs


def test_trials_are_short_trainings_of_their_own(halved: Kept, tree: Tree) -> None:
    first = [(scale, 1) for scale in (0.01, 1.0, 10.0, 100.0)]
    found = [(trial["scale"], trial["epochs"]) for trial in halved.trials]
    assert found[:4] == first
    best = sorted(halved.trials[:4], key=lambda trial: (-trial["acc_val"], trial["scale"]))[:2]
    assert found[4:] == sorted((trial["scale"], 2) for trial in best)
    assert halved.row["acc_val"] == max(trial["acc_val"] for trial in halved.trials[4:])
    for trial in halved.trials:
        changes = {"train__epochs": trial["epochs"], "train__warmup_epochs": trial["epochs"] // 2}
        changes |= {"train__lr": 2e-2, "train__schedule_lag": 0}
        spec = tree.spec(protocol="fixed", scale=trial["scale"], **changes)
        assert validate(spec, tree.runtime())[0] == trial["acc_val"]


def test_the_winner_is_trained_in_full(halved: Kept, tree: Tree, tmp_path: Path) -> None:
    changes = {"train__epochs": 4, "train__warmup_epochs": 2, "train__lr": 2e-2}
    spec = tree.spec(protocol="fixed", scale=halved.row["scale"], **changes)
    row = execute(job_of(spec), tree.runtime(tmp_path))
    file = (tmp_path / row.run_id / ADAPTER).read_bytes()
    assert (halved.store / halved.row["run_id"] / ADAPTER).read_bytes() == file
    assert (halved.row["epochs"], halved.row["n_train"]) == (4, SIZES["train"] + SIZES["val"])
    assert (halved.row["rungs"], row.rungs) == ("0.25 0.5", "")


def test_tables_keep_the_two_searches_apart(halved: Kept, tree: Tree, capsys, monkeypatch) -> None:
    """Compare tables with and without rungs; linear, which has no scale, is in the table of its sweep."""
    changes = {"protocol__scales": "[1]", "train__epochs": 4, "train__warmup_epochs": 2, "train__lr": 2e-2}
    for more in ({}, {"adapter": "linear", "protocol__rungs": "[0.25,0.5]"}):
        overrides = tree.settings(protocol="sealed", **changes | more)
        assert call(capsys, monkeypatch, "sweep", "--store", halved.store, *overrides).returncode == 0
    done = call(capsys, monkeypatch, "report", "--store", halved.store, "--format", "markdown")
    titles = [line for line in done.stdout.splitlines() if "Averages" in line]
    assert len(titles) == 2
    assert ["rungs 0.25 0.5" in title for title in titles] == [False, True]
    assert done.stdout.count("linear") > 0


# Few-shot sets


@dataclass(frozen=True)
class Pets:
    """Overrides of a run on one list of a few-shot set, and the number of its lines."""

    overrides: list[str]
    lines: int


@pytest.fixture(scope="module", params=FEW_SHOT_SETS, ids=str)
def pets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pets]:
    folder, chosen = tmp_path_factory.mktemp("few_shot"), request.param
    names = ("train_meta.list.num_shot_1.seed_0", "val_meta.list", "test_meta.list")
    with chosen.in_use():
        override = trees.few_shot(folder / "data", chosen, names)
        own = [f"data.root={folder / 'data'}", f"data.override={override}", f"data.cache={folder / 'cache'}"]
        own += ["hidden=4", "train.epochs=4", f"train.batch_size={chosen.batch_size // 2}"]
        yield Pets([*FIVE[:-1], "task=fgvc_pets", *own], chosen.lines(1))


@pytest.mark.parametrize(
    ("scales", "rungs", "trainings"),
    [("[1,10]", "[]", 2), ("[1,10]", "[0.5]", 2 + 1), ("[1,10,30,100]", "[0.5,1]", 4 + 2)],
)
@pytest.mark.sampled(2)
def test_a_few_shot_winner_is_trained_once(
    scales: str, rungs: str, trainings: int, pets: Pets, tmp_path: Path, monkeypatch
) -> None:
    """All training images are in train, so that the winner of full trainings is the final model of the run.

    The file is byte for byte that of a training without a search, and so are losses and rates.
    """
    search = ["protocol=sealed", f"protocol.scales={scales}", f"protocol.rungs={rungs}"]
    (spec,) = resolve_tasks(plan([*pets.overrides, *search]).runs, plan(pets.overrides).cache)
    fits = []
    monkeypatch.setattr(training, "fit", lambda *given, **more: fits.append(1) or fit(*given, **more))
    runtime = Runtime(str(tmp_path), cache=plan(pets.overrides).cache)
    row = execute(job_of(spec), runtime)
    assert len(fits) == trainings
    (alone,) = resolve_tasks(
        plan([*pets.overrides, "protocol=fixed", f"scale={row.scale}"]).runs, runtime.cache
    )
    expected = execute(job_of(alone), runtime)
    files = [tmp_path / found.run_id / ADAPTER for found in (row, expected)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (row.acc, row.n_train) == (expected.acc, pets.lines)
    curves = []
    for found in (row, expected):
        events = events_of(tmp_path / found.run_id)
        curves.append([(e.step, e.value) for tag in ("train/loss", "train/lr") for e in events.Scalars(tag)])
    assert curves[0] == curves[1]
    assert len(curves[0]) == 2 * 4
