"""Checkpoints: a run that is killed goes on from them, and its file has the bytes of an unbroken run's."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open

from petl_bench.config import plan
from petl_bench.run import training
from petl_bench.run.execute import execute
from petl_bench.run.identity import identify, job_of, resolve_tasks
from petl_bench.store import ADAPTER, ROW
from petl_bench.types import Cache, ResultRow, RunSpec, Runtime
from tests import trees
from tests.apart import run_apart
from tests.conftest import events_of
from tests.test_halving import Pets, pets  # noqa: F401 - a fixture
from tests.test_protocols import Tree, made

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

    assert run_apart(job_of(spec), runtime, name, writes) == -signal.SIGKILL
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
    "learning rate of matrices": {"adapter": "lora", "matrix_lr": 3, "start": 0.02},
    "floats": {"adapter": "bitfit"},
    "quantized floats": {"adapter": "bitfit", "float_bits": 1},
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
    pets: Pets,
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
