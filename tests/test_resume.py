"""Checkpoints: a run that is killed goes on from them, and its file has the bytes of an unbroken run's."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from petl_bench.config import plan
from petl_bench.errors import DivergedError, StoreError
from petl_bench.run import training
from petl_bench.run.execute import execute
from petl_bench.run.identity import identify, job_of, resolve_tasks
from petl_bench.store import ADAPTER, ROW
from petl_bench.train import TrainingState, checkpoint
from petl_bench.types import Cache, ResultRow, RunSpec, Runtime
from tests import processes, trees
from tests.conftest import SCRIPT, events_of, mounted, petl, quickly, rows_of, wait_until
from tests.test_halving import Pets, pets  # noqa: F401 - a fixture
from tests.test_protocols import Tree, made
from tests.verifying import verify

FOLDER = "checkpoints"
EPOCHS = 4


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return made(tmp_path_factory.mktemp("vtab"), {"train": 48, "val": 16, "test": 16})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with images of several sizes."""
    root = tmp_path_factory.mktemp("own") / "own"
    for label, number in itertools.product(range(2), range(40)):
        image = trees.picture(label, number, 30 + (number + label) % 25)
        trees.save(image, root / f"class {label}/{number}.jpg")
    return root


@dataclass(frozen=True)
class Kept:
    """What a run left, but for times."""

    file: bytes
    row: dict
    trials: list[dict]
    curves: list[tuple[str, int, float]]


def kept(store: Path, run_id: str) -> Kept:
    directory = store / run_id
    assert not (directory / FOLDER).exists()
    row = json.loads((directory / ROW).read_text())
    timed = {key: row.pop(key) for key in [*row] if key.startswith(("seconds_", "images_per", "peak_memory"))}
    timed |= {key: row.pop(key) for key in ("started_at", "finished_at", "digest")}
    for origin in ("scale_from", "lr_from"):  # which a plan states, and `execute` alone does not
        del row[origin]
    search = directory / "search.json"
    events = events_of(directory)
    curves = [(tag, e.step, e.value) for tag in ("train/loss", "train/lr") for e in events.Scalars(tag)]
    return Kept(
        (directory / ADAPTER).read_bytes(),
        row,
        json.loads(search.read_text())["trials"] if search.exists() else [],
        curves,
    )


def runtime_of(store: Path, cache: Cache, every: int, loaders: int = 0) -> Runtime:
    return Runtime(str(store), checkpoint=every, loaders=loaders, cache=cache)


def cut(spec: RunSpec, runtime: Runtime, writes: int, name: str = f"/{FOLDER}/") -> None:
    """Execute in a child process that is killed as it puts its `writes`-th checkpoint into its place.

    All checkpoints before are whole, and half of this one is there. An audit hook sees every rename.

    Args:
        name: what the path of a file contains that counts.
    """

    def child() -> None:
        count = itertools.count(1)

        def watch(event: str, arguments: tuple) -> None:
            if event == "os.rename" and name in os.fsdecode(arguments[1]) and next(count) == writes:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        execute(job_of(spec), runtime)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not (Path(runtime.store) / identify(spec) / ROW).exists()


def log_of(runtime: Runtime, spec: RunSpec) -> str:
    return (Path(runtime.store) / identify(spec) / "run.log").read_text()


def states(runtime: Runtime, spec: RunSpec) -> list[dict]:
    """What the run's checkpoints say of themselves."""
    found = []
    for path in sorted((Path(runtime.store) / identify(spec) / FOLDER).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found.append(json.loads(file.metadata()["progress"]) | {"tensors": set(file.keys())})
    return found


def unbroken(spec: RunSpec, cache: Cache, folder: Path) -> Kept:
    row = execute(job_of(spec), runtime_of(folder / "unbroken", cache, 0))
    return kept(folder / "unbroken", row.run_id)


def same(spec: RunSpec, runtime: Runtime, expected: Kept) -> ResultRow:
    """Execute to the end; what is kept must be what an unbroken run keeps."""
    row = execute(job_of(spec), runtime)
    assert kept(Path(runtime.store), row.run_id) == expected
    return row


# What decides the rest of a training

FIXED = {
    "protocol": "fixed",
    "scale": 1,
    "train__epochs": EPOCHS,
    "train__warmup_epochs": 1,
    "train__batch_size": 16,
}
KINDS = {
    "probe": {"adapter": "linear", "train__drop_path": 0},
    "linear": {"adapter": "linear"},
    "dropout, 1 bit": {"adapter": "adaptformer", "adapter__dropout": 0.3, "train__drop_path": 0.2},
    "rate": {"adapter": "lora", "rate_weight": 1, "train__warmup_epochs": 2},
    "rate from the start": {"adapter": "lora", "rate_weight": 1, "train__warmup_epochs": 0},
    "floats": {"adapter": "bitfit"},
    "32 bits": {"adapter": "lora", "bits": 32, "head": "binary"},
    "bf16": {"precision": "bf16"},
    "peek": {"protocol": "peek", "protocol__every": 3},
    "activations": {"adapter": "lora", "train__activations": "2bit"},
    "average": {"train__average__checkpoints": 3, "train__average__every": 1},
    "two passes": {"adapter": "mosa"},
    "ranks drawn": {"adapter": "dylora"},
    "calibrated": {"adapter": "corda"},
    "selected": {"adapter": "lt_sft", "adapter__density": 0.02, "adapter__epochs": 1},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(2)
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(kind: str, tree: Tree, tmp_path: Path) -> None:
    """Killed three times: when one epoch is kept, when two are, and when the adapter file is to be kept."""
    spec = tree.spec(**FIXED | KINDS[kind])
    cache = tree.runtime().cache
    expected = unbroken(spec, cache, tmp_path)
    runtime = runtime_of(tmp_path / "broken", cache, 1)
    for epochs in (1, 2):
        cut(spec, runtime, 2)
        (state,) = states(runtime, spec)
        assert len(state["losses"]) == epochs
        assert any(name.startswith("optimizer.") for name in state["tensors"])
    cut(spec, runtime, 1, f"/{ADAPTER}")
    assert "resumes from epoch 2\n" in log_of(runtime, spec)
    (state,) = states(runtime, spec)
    assert len(state["losses"]) == EPOCHS
    kinds = {"parameter"} | ({"calibrated"} if kind in ("calibrated", "selected") else set())
    assert {name.partition(".")[0] for name in state["tensors"]} == kinds
    assert len(state["peeks"]) == (2 if kind == "peek" else 0)
    same(spec, runtime, expected)
    assert f"resumes from epoch {EPOCHS}\n" in log_of(runtime, spec)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0)])
@pytest.mark.sampled(1)
def test_augmentation_goes_on_where_it_was(before: int, after: int, own: Path, tmp_path: Path) -> None:
    """Crops, RandAugment, erasing, mixup and cutmix, drop-path and dropout, with and without loaders."""
    cache = Cache(str(tmp_path / "cache"))
    overrides = ["sweep=none", "task=tree", f"data.root={own}", "data.images=64", "hidden=4", "scale=1"]
    overrides += ["train=fgvc_noah", "train.epochs=3", "train.batch_size=16", "train.warmup_epochs=0"]
    overrides += ["train.augment.mixup=0.8", "train.augment.cutmix=1", "train.augment.erasing=0.5"]
    overrides += ["train.drop_path=0.2", "adapter.dropout=0.3"]
    (spec,) = resolve_tasks(plan(overrides).runs, cache)
    assert spec.train.augment.crop
    expected = unbroken(spec, cache, tmp_path)
    cut(spec, runtime_of(tmp_path / "broken", cache, 1, before), 2)
    runtime = runtime_of(tmp_path / "broken", cache, 1, after)
    same(spec, runtime, expected)
    assert "resumes from epoch 1\n" in log_of(runtime, spec)


# Protocol sealed


SEARCHES = {
    "full": {"protocol__scales": "[1,10]", "train__epochs": 2},
    "halving": {"protocol__scales": "[1,10,100]", "protocol__rungs": "[0.5,1]", "train__epochs": 2},
}


@pytest.mark.parametrize(("search", "stride"), [("full", 1), ("halving", 4)])
@pytest.mark.sampled(1)
def test_a_search_goes_on_wherever_it_was_killed(
    search: str, stride: int, tree: Tree, tmp_path: Path
) -> None:
    """After every `stride` epochs in turn; no training that had ended is repeated."""
    spec = tree.spec(protocol="sealed", **SEARCHES[search])
    cache = tree.runtime().cache
    expected = unbroken(spec, cache, tmp_path)
    steps = sum(trial["epochs"] for trial in expected.trials) + 2
    runtime = runtime_of(tmp_path / "broken", cache, 1)
    for done in range(stride, steps, stride):
        cut(spec, runtime, stride + 1)
        found = states(runtime, spec)
        assert sum(len(state["losses"]) for state in found) == done
        assert sum("generator.cpu" in state["tensors"] for state in found) <= 1  # all others have ended
    same(spec, runtime, expected)
    assert log_of(runtime, spec).count("training resumes from epoch") == len(expected.trials) + 1


@pytest.mark.sampled(1)
def test_a_few_shot_winner_that_was_kept_is_not_trained_again(
    pets: Pets,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = plan(pets.overrides).cache
    search = ["protocol=sealed", "protocol.scales=[1,10]"]
    (spec,) = resolve_tasks(plan([*pets.overrides, *search]).runs, cache)
    expected = unbroken(spec, cache, tmp_path)
    runtime = runtime_of(tmp_path / "broken", cache, 2)
    cut(spec, runtime, 1, f"/{ADAPTER}")
    spent = [state["seconds"] for state in states(runtime, spec)]
    assert len(spent) == 2
    monkeypatch.setattr(training, "fit", None)
    row = same(spec, runtime, expected)
    assert row.seconds_train in [pytest.approx(seconds, abs=0.5) for seconds in spent]
    assert row.seconds_train >= min(spent) - 1e-3
    assert row.seconds_search >= sum(spent) - row.seconds_train


# Times


def test_seconds_of_all_attempts_are_counted_once(tree: Tree, tmp_path: Path) -> None:
    spec = tree.spec(**{**FIXED, "protocol": "sealed", "scale": "null", "protocol__scales": "[1,10]"})
    runtime = runtime_of(tmp_path, tree.runtime().cache, 1)
    begin = time.perf_counter()
    spent = 0.0
    for writes in (EPOCHS, EPOCHS, EPOCHS):
        cut(spec, runtime, writes)
        now = sum(state["seconds"] for state in states(runtime, spec))
        assert spent < now < time.perf_counter() - begin
        spent = now
    final = [s["seconds"] for s in states(runtime, spec) if s["origin"]["training"].endswith("-trainval")]
    row = execute(job_of(spec), runtime)
    total = time.perf_counter() - begin
    assert row.seconds_train >= sum(final) - 1e-3
    assert row.seconds_search >= spent - sum(final) - 1e-3
    assert spent <= row.seconds_train + row.seconds_search + 2e-3 < total
    assert row.images_per_second == pytest.approx(64 * EPOCHS / row.seconds_train, rel=0.01)


# K


def test_without_the_setting_nothing_is_written(tree: Tree, tmp_path: Path) -> None:
    spec = tree.spec(**FIXED)
    names = []

    def child() -> None:
        sys.addaudithook(lambda event, given: names.append(given[1]) if event == "os.rename" else None)
        execute(job_of(spec), runtime_of(tmp_path, tree.runtime().cache, 0))
        os._exit(0 if names and not any(FOLDER in os.fsdecode(name) for name in names) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert not (tmp_path / identify(spec) / FOLDER).exists()
    assert "epoch" not in log_of(runtime_of(tmp_path, tree.runtime().cache, 0), spec).partition("\n")[2]


@pytest.mark.parametrize(("before", "writes", "epoch", "after"), [(1, 4, 3, 2), (2, 2, 2, 1), (3, 2, 3, 100)])
@pytest.mark.sampled(1)
def test_the_number_of_epochs_between_checkpoints_may_change(
    before: int, writes: int, epoch: int, after: int, tree: Tree, tmp_path: Path
) -> None:
    spec, cache = tree.spec(**FIXED), tree.runtime().cache
    expected = unbroken(spec, cache, tmp_path)
    cut(spec, runtime_of(tmp_path / "broken", cache, before), writes)
    runtime = runtime_of(tmp_path / "broken", cache, after)
    same(spec, runtime, expected)
    assert f"resumes from epoch {epoch}\n" in log_of(runtime, spec)


# Checkpoints that are not used


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def foreign(path: Path) -> None:
    save_file({"parameter.0": torch.zeros(3)}, path, {"made": "elsewhere"})


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    path.rmdir()
    path.symlink_to(path.parent)


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, noise, foreign, folder])
@pytest.mark.sampled(2)
def test_a_damaged_checkpoint_is_not_used(damage: Callable[[Path], None], tree: Tree, tmp_path: Path) -> None:
    spec, cache = tree.spec(**FIXED | {"adapter": "linear"}), tree.runtime().cache
    expected = unbroken(spec, cache, tmp_path)
    runtime = runtime_of(tmp_path / "broken", cache, 1)
    cut(spec, runtime, 3)
    (path,) = (tmp_path / "broken" / identify(spec) / FOLDER).glob("*.safetensors")
    damage(path)
    same(spec, runtime, expected)
    log = log_of(runtime, spec)
    assert f"checkpoint {path.name} is not used, training starts over: " in log
    assert "resumes" not in log


@pytest.mark.parametrize("key", ["petl-bench", "torch", "timm", "pillow"])
@pytest.mark.sampled(2)
def test_a_checkpoint_of_another_version_is_not_used(
    key: str, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cache = tree.spec(**FIXED | {"adapter": "linear"}), tree.runtime().cache
    runtime = runtime_of(tmp_path / "broken", cache, 1)
    with monkeypatch.context() as patch:
        patch.setitem(checkpoint.VERSIONS, key, "0.0.1")  # the child is of that version
        cut(spec, runtime, 3)
    same(spec, runtime, unbroken(spec, cache, tmp_path))
    assert f"training starts over: it is of {key} 0.0.1, this is " in log_of(runtime, spec)


def test_a_checkpoint_of_another_training_is_not_used(tree: Tree, tmp_path: Path) -> None:
    cache = tree.runtime().cache
    specs = [tree.spec(**FIXED | {"adapter": "linear", "seed": seed}) for seed in (0, 1)]
    runtime = runtime_of(tmp_path / "broken", cache, 1)
    cut(specs[1], runtime, 3)
    (path,) = (tmp_path / "broken" / identify(specs[1]) / FOLDER).glob("*.safetensors")
    place = tmp_path / "broken" / identify(specs[0]) / FOLDER
    place.mkdir(parents=True)
    shutil.copy(path, place / path.name.replace(identify(specs[1]), identify(specs[0])))
    same(specs[0], runtime, unbroken(specs[0], cache, tmp_path))
    assert "training starts over: it is of training" in log_of(runtime, specs[0])


def test_parameters_of_other_shapes_are_left_alone(tmp_path: Path) -> None:
    """What a method leaves that had other parameters under the same version."""
    wide, slim = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    before = TrainingState(tmp_path / "x.safetensors")
    before.losses.append(0.5)
    before.save(torch.optim.AdamW([wide]), 2)
    for parameters in ([slim], [wide, slim]):
        after = TrainingState(tmp_path / "x.safetensors")
        assert after.load(torch.device("cpu"))
        after.restore(parameters)
        assert (after.losses, after.earlier_seconds, slim.tolist()) == ([], 0.0, [1.0, 1.0])


# What stays, and what is removed


def test_half_written_checkpoints_are_removed(tree: Tree, tmp_path: Path) -> None:
    spec, cache = tree.spec(**FIXED | {"adapter": "linear"}), tree.runtime().cache
    runtime = runtime_of(tmp_path, cache, 1)
    for _ in range(2):
        cut(spec, runtime, 2)
        names = [path.name for path in (tmp_path / identify(spec) / FOLDER).iterdir()]
        assert sorted(name.startswith(".") for name in names) == [False, True]


def test_a_run_that_failed_keeps_its_checkpoints_until_it_is_done(tmp_path: Path) -> None:
    """Its test images are damaged, which is found out after training; they are mended, and it goes on."""
    tree = made(tmp_path, {"train": 96, "val": 32, "test": 32})
    overrides = [*tree.settings(**FIXED), "launcher.checkpoint=3"]
    spec, store = tree.spec(**FIXED), tmp_path / "store"
    images = tree.root / "clevr_count/images/test"
    shutil.copytree(images, tmp_path / "whole")
    checked = verify("vtab_clevr_count", tree.root, tree.cache, tree.override)
    assert checked.returncode == 0, checked.stdout  # so that the sweep does not decode them before it trains
    for path in images.iterdir():
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert quickly("sweep", "--store", store, *overrides).returncode == 1
    (state,) = states(Runtime(str(store)), spec)
    assert len(state["losses"]) == EPOCHS
    shutil.copytree(tmp_path / "whole", images, dirs_exist_ok=True)
    done = quickly("sweep", "--store", store, *overrides, "--existing", "retry-failed")
    assert done.returncode == 0, done.stderr
    assert f"resumes from epoch {EPOCHS}\n" in log_of(Runtime(str(store)), spec)
    assert kept(store, identify(spec)) == unbroken(spec, tree.runtime().cache, tmp_path)


def test_a_run_that_diverged_keeps_none(tree: Tree, tmp_path: Path) -> None:
    """The rate warms up to 1e30, an epoch late: the first two epochs are fine and kept."""
    changes = FIXED | {"train__lr": 1e30, "train__warmup_epochs": 2}
    spec, runtime = tree.spec(**changes), runtime_of(tmp_path / "alone", tree.runtime().cache, 1)
    with pytest.raises(DivergedError):
        execute(job_of(spec), runtime)
    assert [len(state["losses"]) for state in states(runtime, spec)] == [2]
    overrides = [*tree.settings(**changes), "launcher.checkpoint=1"]
    done = quickly("sweep", "--store", tmp_path / "store", *overrides)
    assert done.returncode == 1
    assert "not finite at epoch" in done.stderr
    assert not (tmp_path / "store" / identify(spec) / FOLDER).exists()


def test_a_rerun_starts_at_the_beginning(tree: Tree, tmp_path: Path) -> None:
    spec, runtime = tree.spec(**FIXED), runtime_of(tmp_path, tree.runtime().cache, 1)
    for _ in range(2):
        execute(job_of(spec), runtime)
        assert "resumes" not in log_of(runtime, spec)


# Checkpoints that cannot be written


def test_a_full_disk_is_said(tree: Tree, tmp_path: Path) -> None:
    spec, runtime = tree.spec(**FIXED), runtime_of(tmp_path, tree.runtime().cache, 1)
    place = tmp_path / identify(spec) / FOLDER
    place.parent.mkdir()
    for disk in mounted(place, "size=4k"):
        with pytest.raises(StoreError) as refused:
            execute(job_of(spec), runtime)
        assert str(refused.value).startswith(f"checkpoint {disk}/")
        assert str(refused.value).endswith(
            "-trainval.safetensors: cannot be written: No space left on device"
        )
        assert list(disk.iterdir()) == []


def test_a_place_that_is_taken_is_said(tree: Tree, tmp_path: Path) -> None:
    spec, runtime = tree.spec(**FIXED), runtime_of(tmp_path, tree.runtime().cache, 1)
    (tmp_path / identify(spec)).mkdir()
    (tmp_path / identify(spec) / FOLDER).write_text("")
    with pytest.raises(StoreError, match=f"checkpoint {tmp_path}.*: cannot be written: "):
        execute(job_of(spec), runtime)


# The command


def test_a_killed_sweep_goes_on_with_the_same_command(tree: Tree, tmp_path: Path) -> None:
    """SIGKILL for the command and its workers somewhere in training."""
    epochs = 100
    changes = FIXED | {"adapter": "linear", "train__epochs": epochs}
    overrides = [*tree.settings(**changes), "launcher.checkpoint=1"]
    spec, store = tree.spec(**changes), tmp_path / "store"
    with processes.Popen(
        [SCRIPT, "sweep", "--store", str(store), *overrides],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: list(store.glob(f"*/{FOLDER}/*.safetensors")), 200)
        os.killpg(process.pid, signal.SIGKILL)
    assert not rows_of(store)
    (state,) = states(Runtime(str(store)), spec)
    done = len(state["losses"])
    assert 0 < done < epochs
    again = petl("sweep", "--store", store, *overrides)
    assert again.returncode == 0, again.stderr
    assert f"resumes from epoch {done}\n" in log_of(Runtime(str(store)), spec)
    assert kept(store, identify(spec)) == unbroken(spec, tree.runtime().cache, tmp_path)


def test_the_setting_is_no_part_of_a_runs_identity(tree: Tree) -> None:
    assert tree.spec(launcher__checkpoint=3) == tree.spec()
    assert '"checkpoint"' not in json.dumps(asdict(tree.spec()))
