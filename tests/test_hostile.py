"""Hostile inputs end in one short message with exit code 2, or in a result: no traceback, hang or mess."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from petl_bench.config import compose, files, plan
from petl_bench.data import manifest_files
from petl_bench.run import execute  # noqa: F401 - imports torch and timm, which takes seconds
from tests import hostile, trees
from tests.conftest import LONG, quickly
from tests.hostile.inputs import ONE
from tests.hostile.settings import MANIFEST_DIR

COUNTS = {
    "setting": 20,
    "grammar": 10,
    "conf": 5,
    "manifest": 10,
    "override": 10,
    "adapter": 20,
    "stored": 8,
    "listed": 5,
    "checkpoint": 3,
    "name": 10,
}
"""Inputs of each kind, 101 together; `make test-long` takes twenty times as many."""
SECONDS = 60
"""Seconds after which an input counts as a hang; far more than any takes, since the machine may be loaded."""
MOST = 2000
"""Maximum characters of a message."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small task in VTAB's layout."""
    root = tmp_path_factory.mktemp("root")
    trees.vtab_task(root / "svhn", 10, {"train": 20, "val": 10, "test": 20}, suffix=".png", side=16)
    return root


def _forget() -> None:
    """Forget what was read of conf/ and of the manifests."""
    from hydra.core.config_store import ConfigStore

    for cached in (value for value in vars(compose).values() if hasattr(value, "cache_clear")):
        cached.cache_clear()
    manifest_files.manifests.cache_clear()
    ConfigStore.instance().repo.pop("task", None)


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For edited files of conf/ and manifests: nothing is kept that was read of others."""
    yield monkeypatch
    monkeypatch.undo()
    _forget()


def _hang(number: int, frame: object) -> None:
    raise AssertionError(f"it hangs: more than {SECONDS} s")


def files_of(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")} if folder.is_dir() else set()


@pytest.mark.parametrize("number", range(20 if LONG else 1))
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_a_hostile_input_is_refused_in_one_short_message(
    kind: str, number: int, finished_store: Path, tree: Path, tmp_path: Path, edited: pytest.MonkeyPatch
) -> None:
    """Return codes are 0, 1 or 2, and a refusal is one printable line that leaves no half-written file."""
    edited.setenv("PETL_BENCH_CACHE", str(tmp_path / "cache"))
    edited.setenv("HF_HUB_OFFLINE", "1")
    adapters = sorted(finished_store.glob("*/adapter.safetensors"))
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for count in range(number * COUNTS[kind], (number + 1) * COUNTS[kind]):
            folder = tmp_path / str(count)
            folder.mkdir()
            place = hostile.Place(folder, finished_store, tree, adapters)
            attempt = hostile.KINDS[kind](random.Random(f"{kind} {count}"), place)
            if attempt.conf or attempt.manifests:
                _forget()
                edited.setattr(files, "CONF_DIR", attempt.conf or files.CONF_DIR)
                edited.setattr(compose, "CONF_DIR", files.CONF_DIR)
                edited.setattr(sys.modules[plan.__module__], "CONF_DIR", files.CONF_DIR)
                edited.setattr(manifest_files, "MANIFEST_DIR", attempt.manifests or MANIFEST_DIR)
            held = files_of(folder)
            signal.alarm(SECONDS)
            done = quickly(*attempt.arguments, cwd=tmp_path)
            signal.alarm(0)
            where = f"{kind} {count}: {attempt.about}: {done.stderr[:3000]}"
            assert done.returncode in (0, 1, 2), where
            assert "Traceback" not in done.stderr, where
            assert "a bug of petl-bench" not in done.stderr, where
            lines = done.stderr.splitlines()
            assert all(len(line) < MOST for line in lines), where
            assert all(c.isprintable() or c == "\n" for c in done.stderr), where
            if done.returncode == 2 and "Usage: " not in done.stderr:
                errors = [line for line in lines if not line.startswith("warning: ")]
                assert len(errors) == 1, where
                assert errors[0].startswith("error: "), where
                assert files_of(folder) == held, where
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


RANGES = [
    ("hidden=99999999999999999999", "hidden"),
    ("scale=1e308", "scale"),
    ("scale=" + "9" * 400, "scale"),
    ("seed=9223372036854775808", "seed"),
    ("split_seed=-1", "split_seed"),
    ("shots=-1", "shots"),
    ("train.lr=1e300", "train.lr"),
    ("train.epochs=99999999999999999999", "train.epochs"),
    ("train.augment.mixup=1e308", "train.augment.mixup"),
    ("train.batch_size=1001", "train.batch_size"),
    ("backbone.image_size=0", "backbone.image_size"),
    ("backbone.image_size=1", "backbone.image_size"),
    ("adapter.dropout=inf", "adapter.dropout"),
    ("adapter.dropout=nan", "adapter.dropout"),
    ("seed=range(1,inf)", "seed"),
    ("hidden=range(0,1e9)", "hidden"),
    ("hidden=range(0,1,0)", "hidden"),
    ("train.lr=" + "9" * 5000, "train.lr"),
    ("hidden=range(1,9000) seed=range(1,9000)", "runs"),
]


@pytest.mark.parametrize(("overrides", "named"), RANGES, ids=[o[:30] for o, _ in RANGES])
@pytest.mark.sampled(6)
def test_a_number_out_of_range_is_refused_by_the_plan(overrides: str, named: str, tmp_path: Path) -> None:
    arguments = [*ONE[:2], *overrides.split()]
    done = quickly("sweep", "--store", tmp_path / "store", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert len(done.stderr) < MOST
    assert not os.listdir(tmp_path)


def test_every_command_shows_control_characters_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"red\x1b[31m\xff\n")
    (tmp_path / name).mkdir()
    (tmp_path / name / "x").write_bytes(b"x")
    for arguments in (
        ["report", "--store", tmp_path / name],
        ["store", "check", "--store", tmp_path / name],
        ["inspect", tmp_path / name / "x"],
        ["eval", tmp_path / name / "x"],
        ["convert", tmp_path / name / "x", tmp_path / "y", "--to", "petl-bench"],
        ["data", "verify", "vtab_dtd", "--root", tmp_path / name],
        ["data", "info", name],
        ["ls", "tasks", name],
        ["sweep", "--dry-run", name],
        [name],
    ):
        done = quickly(*arguments)
        text = done.stdout + done.stderr
        assert r"\x1b[31m" in text.replace("\\\\", "\\"), (arguments, text)
        assert all(c.isprintable() or c == "\n" for c in text), arguments
