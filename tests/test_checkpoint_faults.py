"""Times and spacing of checkpoints; those that cannot be used or written, and those that are removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from petl_bench.errors import DivergedError, StoreError
from petl_bench.run.execute import execute
from petl_bench.run.identity import identify, job_of
from petl_bench.train import TrainingState, checkpoint
from petl_bench.types import Runtime
from tests import processes
from tests.apart import RENAMED, run_apart
from tests.conftest import SCRIPT, mounted, petl, quickly, rows_of
from tests.processes import wait_until
from tests.test_protocols import Tree, made
from tests.test_resume import (  # noqa: F401 - fixtures
    EPOCHS,
    FIXED,
    FOLDER,
    cut,
    kept,
    log_of,
    runtime_of,
    same,
    states,
    tree,
    unbroken,
)
from tests.verifying import verify


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
    store = tmp_path / "store"
    assert run_apart(job_of(spec), runtime_of(store, tree.runtime().cache, 0)) == 0
    names = (store / RENAMED).read_text().splitlines()
    assert names
    assert not any(FOLDER in name for name in names)
    assert not (store / identify(spec) / FOLDER).exists()
    assert "epoch" not in log_of(runtime_of(store, tree.runtime().cache, 0), spec).partition("\n")[2]


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
    """A checkpoint of a method that had other parameters under the same version."""
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
