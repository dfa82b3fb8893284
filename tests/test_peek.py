"""When test images are opened, and the protocols fixed and peek."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from petl_bench import data
from petl_bench.config import plan
from petl_bench.launch.attempt import attempt
from petl_bench.model import assemble
from petl_bench.run.identity import identify, job_of
from petl_bench.run.training import train
from petl_bench.store import ADAPTER, Store
from petl_bench.train import Hooks, Pixels, Training, evaluate, fit
from petl_bench.types import TRAINVAL
from tests import processes
from tests.conftest import call, error_of, pick, quickly
from tests.made import make_row
from tests.test_protocols import SIZES, Tree, made, tree  # noqa: F401 - fixtures

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
    """Return the outcome of each case, in a process of its own, which is a fork of one with the imports."""
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
