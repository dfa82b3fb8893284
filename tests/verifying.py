"""Helpers for tests of `petl-bench data verify`: the command, its output, and changes to a copied tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from petl_bench.data import manifests
from petl_bench.types import DataSettings
from tests import trees
from tests.conftest import json_lines, quickly
from tests.trees import picture, save

TRAIN, VAL, BOTH, TEST = "train", "val", "trainval", "test"
LISTS = {TRAIN: "train800", VAL: "val200", BOTH: "train800val200", TEST: "test"}
TRAINS, VALS = trees.few(manifests()["vtab_dtd"]).values()
TESTS = 94  # two of each class of dtd, as tests.trees makes them


def verify(
    suite: str, root: Path, cache: Path, override: Path | None = None, json: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which saves the start of a new one a hundred times."""
    more = [*(["--override", override] if override else []), *(["--json"] if json else [])]
    return quickly("data", "verify", suite, "--root", root, *more, PETL_BENCH_CACHE=str(cache))


def found(done: subprocess.CompletedProcess[str]) -> tuple[list[dict], dict]:
    """Return problems and summary of --json after checking that they agree with exit code and stderr."""
    assert done.stdout, done.stderr
    *problems, summary = json_lines(done.stdout)
    assert summary["summary"] is True
    assert all(set(problem) == {"task", "split", "kind", "path", "message"} for problem in problems)
    assert all(problem["message"] and problem["kind"] and problem["path"] for problem in problems)
    assert summary["ok"] is not bool(problems)
    assert done.returncode == (1 if problems else 0), done.stderr
    assert ("problem" in done.stderr) is bool(problems)
    assert "Traceback" not in done.stderr
    return problems, summary


def kinds(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {problem["kind"] for problem in found(done)[0]}


def settings(root: Path, override: Path | str = "") -> DataSettings:
    return DataSettings(root=str(root), override=str(override))


# Changes to a copy whose files are hard links: each replaces the link and leaves the original alone


def copy_of(tree: Path, target: Path) -> Path:
    return Path(shutil.copytree(tree, target, copy_function=os.link))


def write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replace the lines of a list file."""
    lines = change(path.read_text().splitlines())
    write(path, "".join(f"{line}\n" for line in lines).encode())


def swap(first: Path, second: Path) -> None:
    """Exchange the contents of two files."""
    one, other = first.read_bytes(), second.read_bytes()
    write(first, other)
    write(second, one)


def new_image(path: Path, number: int = 999_999) -> None:
    path.unlink(missing_ok=True)
    save(picture(0, number, 24), path)


def copy_over(task: Path, source: str, split: str, number: int) -> None:
    """Overwrite a training image with another file, also in the folder of train800val200."""
    data = (task / source).read_bytes()
    write(task / f"images/{LISTS[split]}/{number:06d}.jpg", data)
    whole = number if split == TRAIN else TRAINS + number
    write(task / f"images/train800val200/{whole:06d}.jpg", data)


def label(line: str, new: object) -> str:
    return f"{line.rpartition(' ')[0]} {new}"
