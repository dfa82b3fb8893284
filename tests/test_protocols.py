"""Protocols sealed, fixed and peek on a small task in the layout of VTAB-1K."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petl_bench import data
from petl_bench.config import plan
from petl_bench.launch.attempt import attempt
from petl_bench.model import assemble
from petl_bench.run.execute import execute
from petl_bench.run.identity import identify, job_of, resolve_tasks
from petl_bench.run.training import select, train
from petl_bench.store import ADAPTER, Store
from petl_bench.train import Hooks, Pixels, Training, evaluate, fit
from petl_bench.types import TRAINVAL, Cache, RunSpec, Runtime
from tests import processes, trees
from tests.conftest import call, error_of, json_lines, make_row, pick, quickly

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


# Test stays shut


WATCHED = """
import json, logging, multiprocessing, os, sys
from petl_bench.config import plan
from petl_bench.run.identity import job_of, resolve_tasks
from petl_bench.run.execute import execute
from petl_bench.types import Cache, Runtime

locked, opened = True, set()


def guard(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    path = os.fsdecode(arguments[0])
    if "/images/test/" in path:
        if locked:
            raise PermissionError(13, "test is shut", path)
        opened.add(path)


class Key(logging.Handler):
    def emit(self, record):
        global locked
        locked = locked and "evaluation on test begins" not in record.getMessage()


def watch(case, overrides):
    cache = Cache(f"{folder}/{case}/cache")
    (spec,) = resolve_tasks(plan(overrides).runs, cache)  # hashes every file, and decodes none
    logging.getLogger("petl_bench").addHandler(Key())
    sys.addaudithook(guard)
    try:
        execute(job_of(spec), Runtime(f"{folder}/{case}/store", cache=cache))
        said = "done"
    except Exception as error:
        said = str(error)
    print(json.dumps([case, {"said": said, "opened": len(opened), "locked": locked}]), flush=True)

folder, cases = sys.argv[1], json.loads(sys.argv[2])
for case in cases.items():
    process = multiprocessing.get_context("fork").Process(target=watch, args=case)
    process.start()
    process.join()
"""

CASES = {
    "sealed": {"protocol": "sealed", "protocol__scales": "[1,10]"},
    "halving": {"protocol": "sealed", "protocol__scales": "[1,10]", "protocol__rungs": "[0.5]"},
    "fixed": {"protocol": "fixed", "scale": "1"},
    "peek": {"protocol": "peek", "protocol__every": "1", "scale": "1"},
}


@pytest.fixture(scope="module")
def watched(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What became of each case, in a process of its own: a fork of one that has the imports behind it."""
    cases = json.dumps({case: tree.settings(**changes) for case, changes in CASES.items()})
    done = processes.run([sys.executable, "-c", WATCHED, tmp_path_factory.mktemp("watched"), cases])
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("protocol", CASES)
def test_no_test_image_is_opened_before_training_is_over(
    protocol: str, watched: dict[str, dict[str, object]]
) -> None:
    """An audit hook, which no Python code can pass by, refuses every earlier open; peek runs into it."""
    found = watched[protocol]
    if protocol == "peek":
        assert "test is shut" in str(found["said"])
        assert (found["opened"], found["locked"]) == (0, True)
    else:
        # Each of the test files, and the hook sees that they are opened.
        assert found == {"said": "done", "opened": SIZES["test"], "locked": False}


def test_test_files_that_changed_are_found_out_only_after_training(tmp_path: Path) -> None:
    tree = made(tmp_path)
    spec = tree.spec(protocol__scales="[1,10]")
    for path in (tree.root / "clevr_count/images/test").iterdir():
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    Store(tmp_path / "store").create()
    outcome = attempt(job_of(spec), tree.runtime(tmp_path / "store"))
    assert outcome.row is None
    assert outcome.error is not None
    assert str(tree.root / "clevr_count/images/test/0000") in outcome.error
    assert "Traceback" not in outcome.error
    log = (tmp_path / "store" / identify(spec) / "run.log").read_text()
    assert "trained and packed; evaluation on test begins" in log
    assert log.count("acc on val") == 2


# fixed


def test_fixed_without_a_known_scale_is_refused_with_the_way_out(
    tree: Tree, tmp_path: Path, capsys, monkeypatch
) -> None:
    own = {"task": "folder", "data__root": tree.root / "clevr_count", "data__override": ""}
    for unknown in (own, {"hidden": "4"}):  # the released checkpoints are of hidden 1 and 32
        overrides = tree.settings(protocol="fixed", **unknown)
        message = error_of(call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", *overrides))
        assert "conf/tuned has no scale for adapter=adaptformer" in message
        assert "scale=1.0" in message
        assert "protocol=sealed" in message
    assert not (tmp_path / "store").exists()


# peek


@pytest.mark.parametrize(
    ("every", "epochs", "looks"), [(2, 5, [2, 4, 5]), (10, 3, [3]), (1, 3, [1, 2, 3]), (2, 4, [2, 4])]
)
@pytest.mark.sampled(1)
def test_peek_looks_every_so_often_and_at_the_end(
    every: int, epochs: int, looks: list[int], tree: Tree
) -> None:
    """Against the same training with test evaluated after each epoch, whatever the protocol."""
    changes = {"scale": 1, "train__epochs": epochs, "train__lr": 7e-3, "train__drop_path": 0.1}
    peeking = tree.spec(protocol="peek", protocol__every=every, **changes)
    spec, cache, size = tree.spec(protocol="fixed", **changes), tree.runtime().cache, 32
    adapted = assemble(spec.model, spec.seed, spec.train.drop_path)
    adapted.prepare()
    pixels = Pixels(spec.train.normalization, size, torch.device("cpu"))
    test, accuracies = data.load(spec.task, "test", size, cache), []

    class Recorder(Hooks):
        def after_epoch(self, epoch: int) -> None:
            accuracies.append(evaluate(adapted.network, test, pixels))

    fit(
        Training(
            adapted.network,
            adapted.trainable,
            data.load(spec.task, TRAINVAL, size, cache),
            spec.train,
            pixels,
            spec.seed,
            hooks=Recorder(),
        )
    )
    assert len(accuracies) == epochs
    peeks = train(peeking, tree.runtime()).peeks
    assert peeks == [accuracies[epoch - 1] for epoch in looks]
    assert epochs == 3 or len(set(accuracies)) > 2


@pytest.mark.parametrize("every", [0, -1])
def test_peek_needs_a_positive_number_of_epochs_between_looks(
    every: int, tree: Tree, tmp_path: Path, capsys, monkeypatch
) -> None:
    overrides = tree.settings(protocol="peek", protocol__every=every, scale=1)
    message = error_of(call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", *overrides))
    assert f"protocol.every={every}" in message
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def three_protocols(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell under each protocol, in one store."""
    store = tmp_path_factory.mktemp("three") / "store"
    overrides = tree.settings(protocol="sealed,fixed,peek", scale=1, train__epochs=3, train__lr=5e-2)
    done = quickly("sweep", "--store", store, *overrides)
    assert done.returncode == 0, done.stderr
    return store


def test_peek_reports_the_last_epoch_from_the_file_and_the_best_beside_it(three_protocols: Path) -> None:
    peek, fixed = (pick(three_protocols, protocol=name) for name in ("peek", "fixed"))
    files = [(three_protocols / row["run_id"] / ADAPTER).read_bytes() for row in (peek, fixed)]
    assert files[0] == files[1]  # looking changes nothing
    assert peek["acc"] == fixed["acc"]
    # The last look is one of those that the best is taken from; an image may flip between file and memory.
    assert peek["acc_best_peek"] >= peek["acc"] - 1 / SIZES["test"]
    assert fixed["acc_best_peek"] is None


def test_protocols_have_tables_of_their_own(three_protocols: Path, capsys, monkeypatch) -> None:
    done = call(capsys, monkeypatch, "report", "--store", three_protocols)
    assert done.returncode == 0, done.stderr
    titles = [line for line in done.stdout.splitlines() if line.startswith("Averages")]
    assert len(titles) == 3
    for protocol in ("fixed", "peek", "sealed"):
        (title,) = [line for line in titles if f"protocol {protocol}" in line]
        assert ("†" in title) == (protocol == "peek")
    assert "several protocols" in done.stderr
    assert "accuracies marked † are the best of several evaluations on the test images" in done.stderr
    alone = call(capsys, monkeypatch, "report", "--store", three_protocols, "--filter", "protocol=fixed")
    assert "†" not in alone.stdout + alone.stderr
    assert "several protocols" not in alone.stderr


def test_a_table_of_peeks_shows_the_best_and_names_the_last_epoch(
    tree: Tree, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Made-up rows of the bundled suite: best looks of 0.5 to 0.9, each 0.1 above the last epoch."""
    axes = {"task": "digits,surfaces,sprites_loc,sprites_ori,shapes_count", "train": "pocket"}
    runs = plan(tree.settings(protocol="peek", scale=1, data__override="", **axes)).runs
    for number, spec in enumerate(runs):
        best = round(0.5 + number / 10, 1)
        row = make_row(
            spec,
            round(best - 0.1, 1),
            acc_best_peek=best,
            shots=0,
            split_seed=0,
            data_override="",
            seconds_search=0.0,
            pillow_version="0",
        )
        Store(tmp_path).put(spec, row, b"adapter")
    report = ("report", "--store", tmp_path, "--format")
    content = json.loads(call(capsys, monkeypatch, *report, "json").stdout)
    means = {cell["task"]: cell["mean"] for cell in content["rows"]}
    expected = {spec.task.name: 0.5 + number / 10 for number, spec in enumerate(runs)}
    assert means == pytest.approx(expected)
    (line,) = content["averages"]
    assert line["mean_of_tasks"]["mean"] == pytest.approx(0.7)  # (0.5 + 0.6 + 0.7 + 0.8 + 0.9) / 5
    assert line["mean_of_groups"]["mean"] - line["last_epoch"]["mean"] == pytest.approx(0.1)
    markdown = call(capsys, monkeypatch, *report, "markdown").stdout
    assert "Best test accuracy seen (%) †" in markdown
    assert "last epoch" in markdown
