"""`petl-bench store check`: every kind of damage is named and set aside, and the rest stays usable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from petl_bench.errors import DamagedError
from petl_bench.store import ADAPTER, ASIDE, ERROR, PREDICTIONS, ROW, SEARCH, SPEC, Store
from petl_bench.store.check import Run, check, nobody, repair
from petl_bench.types import digest_of, stored_id
from tests.conftest import error_of, json_lines, pick, quickly, rows_of


def first(store: Path) -> Path:
    """The run of a 1-bit AdaptFormer on digits."""
    return store / pick(store, task="digits", adapter="adaptformer", bits=1)["run_id"]


def kinds(store: Path, name: str) -> set[str]:
    run = Run(Store(store), name)
    run.examine()
    return {problem.kind for problem in run.problems}


def edit(path: Path, **changes: object) -> None:
    """Change a file as somebody who knows of digests, so that what else gives the change away is found."""
    values = json.loads(path.read_text()) | changes
    if path.name == ROW and "digest" not in changes:
        values["digest"] = digest_of(values)
    path.write_text(json.dumps(values, indent=1) + "\n")


def without(path: Path, key: str) -> None:
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))


def flip(path: Path, place: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.write_bytes(data)


def larger(run: Path) -> dict[str, int]:
    """The bytes of a row as if its head had one more."""
    row = json.loads((run / ROW).read_text())
    return {name: row[name] + 1 for name in ("bytes_head", "bytes_file")}


def swap_files(run: Path) -> None:
    """The adapter files of two runs of one size class, each whole."""
    other = run.parent / pick(run.parent, task="digits", adapter="lora", bits=1)["run_id"]
    mine, others = (run / ADAPTER).read_bytes(), (other / ADAPTER).read_bytes()
    (run / ADAPTER).write_bytes(others)
    (other / ADAPTER).write_bytes(mine)


def swap_predictions(run: Path) -> None:
    other = run.parent / pick(run.parent, task="digits", adapter="lora", bits=1)["run_id"]
    shutil.copy(other / PREDICTIONS, run / PREDICTIONS)


def as_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "row cut": (lambda run: os.truncate(run / ROW, 300), "row"),
    "row empty": (lambda run: (run / ROW).write_bytes(b""), "row"),
    "row garbage": (lambda run: (run / ROW).write_bytes(bytes(range(256))), "row"),
    "row not UTF-8": (lambda run: flip(run / ROW, 20, 0x80), "row"),
    "row nested": (lambda run: (run / ROW).write_text("[" * 100_000), "row"),
    "row of another type": (lambda run: edit(run / ROW, seed="0"), "row"),
    "row below zero": (lambda run: edit(run / ROW, bytes_head=-1), "row"),
    "row beyond reason": (lambda run: edit(run / ROW, n_train=10**400), "row"),
    "row a loop": (lambda run: as_loop(run / ROW), "row"),
    "row a directory": (lambda run: as_folder(run / ROW), "row"),
    "row a pipe": (lambda run: as_pipe(run / ROW), "row"),
    "row of no fraction": (lambda run: edit(run / ROW, acc=0.12345), "row"),
    "row of a newer version": (lambda run: edit(run / ROW, energy=1.5, cores=2), "newer"),
    "row of an older version": (lambda run: without(run / ROW, "acc"), "row"),
    "row of another seed": (lambda run: edit(run / ROW, seed=1), "mismatch"),
    "row of other bytes": (lambda run: edit(run / ROW, bytes_head=1), "row"),
    "row of a larger file": (lambda run: edit(run / ROW, **larger(run)), "mismatch"),
    "row without its digest": (lambda run: edit(run / ROW, digest=""), "row"),
    "row of another digest": (lambda run: edit(run / ROW, digest="0" * 16), "row"),
    "row of another backbone": (lambda run: edit(run / ROW, backbone_sha256="0" * 64), "identity"),
    "spec cut": (lambda run: os.truncate(run / SPEC, 300), "spec"),
    "spec gone": (lambda run: (run / SPEC).unlink(), "spec"),
    "spec of a newer version": (lambda run: edit(run / SPEC, flavour="mild"), "newer"),
    "spec of another seed": (lambda run: edit(run / SPEC, seed=3), "identity"),
    "adapter cut": (lambda run: os.truncate(run / ADAPTER, 1000), "adapter"),
    "adapter empty": (lambda run: os.truncate(run / ADAPTER, 0), "adapter"),
    "adapter flipped": (lambda run: flip(run / ADAPTER, -9), "adapter"),
    "adapter gone": (lambda run: (run / ADAPTER).unlink(), "adapter"),
    "adapter a pipe": (lambda run: as_pipe(run / ADAPTER), "adapter"),
    "adapters swapped": (swap_files, "mismatch"),
    "search garbage": (lambda run: (run / SEARCH).write_bytes(b"\xff\xfe"), "search"),
    "search empty": (lambda run: (run / SEARCH).write_text("{}"), "search"),
    "predictions cut": (lambda run: os.truncate(run / PREDICTIONS, 20), "predictions"),
    "predictions empty": (lambda run: os.truncate(run / PREDICTIONS, 0), "predictions"),
    "predictions a pipe": (lambda run: as_pipe(run / PREDICTIONS), "predictions"),
    "predictions of another run": (swap_predictions, "predictions"),
    "row of another accuracy": (lambda run: edit(run / ROW, acc=0.0), "predictions"),
    "row of other predictions": (lambda run: edit(run / ROW, predictions="0" * 16), "predictions"),
    "error garbage": (lambda run: (run / ERROR).write_text("[]"), "error"),
    "left half file": (lambda run: (run / f".{ROW}.x1y2z3").write_text("{"), "litter"),
    "a file instead": (lambda run: (shutil.rmtree(run), run.write_text("")), "no_directory"),
    "a loop instead": (lambda run: (shutil.rmtree(run), run.symlink_to(run.name)), "no_directory"),
    "a dead link instead": (lambda run: (shutil.rmtree(run), run.symlink_to("gone")), "no_directory"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_is_named_and_set_aside(name: str, store_copy: Path) -> None:
    run = first(store_copy)
    damage, kind = DAMAGES[name]
    damage(run)
    before = {path.name for path in run.iterdir()} if run.is_dir() else set()
    done = quickly("store", "check", "--store", store_copy, "--json")
    assert done.returncode == 1, done.stdout
    *problems, summary = json_lines(done.stdout)
    assert (run.name, kind) in {(problem["run_id"], problem["kind"]) for problem in problems}
    assert all(set(problem) == {"run_id", "kind", "path", "message"} for problem in problems)
    assert summary["problems"] == len(problems)
    assert not summary["ok"]
    assert "--repair" in done.stderr
    done = quickly("store", "check", "--store", store_copy, "--repair")
    assert done.returncode == 0, done.stderr
    aside = store_copy / ASIDE / run.name
    assert str(aside) in done.stdout
    if kind == "litter":
        assert [path.name for path in aside.iterdir()] == [f".{ROW}.x1y2z3"]
        assert (run / ROW).is_file()
    else:
        assert not os.path.lexists(run)
        assert before <= {path.name for path in aside.iterdir()}
    assert quickly("store", "check", "--store", store_copy).returncode == 0


def test_messages_name_versions(store_copy: Path) -> None:
    run = first(store_copy)
    edit(run / ROW, energy=1.5, cores=2)
    with pytest.raises(DamagedError, match=r"unknown columns energy, cores: written by a newer petl-bench\?"):
        Store(store_copy).row(run.name)
    edit(run / SPEC, flavour="mild")
    with pytest.raises(DamagedError, match=r"unknown fields flavour: written by a newer petl-bench\?"):
        Store(store_copy).spec(run.name)
    without(run / SPEC, "flavour")
    values = json.loads((run / SPEC).read_text())
    del values["train"]["drop_path"]
    (run / SPEC).write_text(json.dumps(values))
    with pytest.raises(DamagedError, match=r"lacks the fields train.drop_path: written by an older version"):
        Store(store_copy).spec(run.name)
    values["train"]["drop_paths"] = 0
    (run / SPEC).write_text(json.dumps(values))
    with pytest.raises(
        DamagedError, match=r"damaged: unknown fields train.drop_paths; it lacks train.drop_path"
    ):
        Store(store_copy).spec(run.name)


def rename_as(run: Path, values: dict, version: int) -> Path:
    """Make a run what an older version would have left: its spec, its name."""
    (run / SPEC).write_text(json.dumps(values))
    name = stored_id(values, json.loads((run / ROW).read_text())["backbone_sha256"], version)
    edit(run / ROW, run_id=name, **dict.fromkeys(("digest", "spec_digest", "scale_from", "lr_from"), ""))
    return run.rename(run.with_name(name))


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_of_an_older_version_is_no_damage(version: int, store_copy: Path) -> None:
    run = first(store_copy)
    values = json.loads((run / SPEC).read_text())
    if version == 2:  # before these fields were there
        del values["statistics"], values["task"]["override"], values["train"]["drop_path"]
    run = rename_as(run, values, version)
    assert kinds(store_copy, run.name) == {"older"}
    done = quickly("store", "check", "--store", store_copy, "--repair")
    assert done.returncode == 0
    assert f"{run.name}: older: {run / SPEC}" in done.stdout
    assert "notes: older 1" in done.stdout
    assert run.is_dir()
    assert run.name in quickly("report", "--store", store_copy, "--format", "csv").stdout


def test_a_renamed_and_a_copied_run_are_not_counted(store_copy: Path) -> None:
    run = first(store_copy)
    shutil.copytree(run, store_copy / "copy of it")
    run.rename(store_copy / ("0" * 12))
    assert len(list(Store(store_copy).rows(lambda error: None))) == 9
    done = quickly("store", "check", "--store", store_copy, "--repair", "--json")
    assert done.returncode == 0
    *problems, summary = json_lines(done.stdout)
    assert {(p["run_id"], p["kind"]) for p in problems} == {
        ("0" * 12, "identity"),
        ("copy of it", "identity"),
    }
    assert set(summary["set_aside"]) == {"0" * 12, "copy of it"}


def test_what_is_no_run_is_named_and_stays(store_copy: Path) -> None:
    (store_copy / "notes.txt").write_text("mine")
    (store_copy / "plots").mkdir()
    (store_copy / os.fsdecode(b"bad\xff\nname")).mkdir()
    (store_copy / ".claims").mkdir(exist_ok=True)
    (store_copy / ("f" * 12)).mkdir()
    (store_copy / ("f" * 12) / "run.log").write_text("begun")
    done = quickly("store", "check", "--store", store_copy, "--repair")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert "11 runs: no damage; notes: foreign 3, unfinished 1" in done.stdout
    assert "bad\\udcff\\nname" in done.stdout
    assert (store_copy / "notes.txt").read_text() == "mine"
    assert len(quickly("report", "--store", store_copy, "--format", "csv").stdout.splitlines()) == 11


def test_failed_runs_are_looked_at(store_copy: Path) -> None:
    run = first(store_copy)
    (run / ROW).unlink()
    (run / ERROR).write_text(json.dumps({"type": "E", "message": "went wrong"}))
    assert kinds(store_copy, run.name) == set()
    without(run / SPEC, "seed")
    assert kinds(store_copy, run.name) == {"older"}
    (run / SPEC).write_text("x")
    (run / ERROR).write_text("x")
    assert kinds(store_copy, run.name) == {"spec", "error"}


def test_names_that_are_taken_are_numbered(store_copy: Path) -> None:
    store, run = Store(store_copy), first(store_copy)
    for number in ("", ".2", ".3"):
        run.mkdir(exist_ok=True)
        (run / ROW).write_text(f"damage {number}")
        report = check(store, lambda count: None)
        assert repair(store, report) == {run.name: str(store_copy / ASIDE / f"{run.name}{number}")}
        assert (store_copy / ASIDE / f"{run.name}{number}" / ROW).read_text() == f"damage {number}"


def test_a_run_someone_works_on_is_left_alone(store_copy: Path) -> None:
    store, run = Store(store_copy), first(store_copy)
    (run / ROW).write_text("half")
    report = check(store, lambda count: None, busy=lambda name: name == run.name)
    assert [(p.run_id, p.kind) for p in report.problems] == [(run.name, "busy")]
    assert report.damage == []
    found = check(store, lambda count: None)
    assert repair(store, found, busy=lambda name: True) == {}  # began between look and repair
    assert not nobody(run.name)
    assert run.is_dir()


def test_clocks_do_not_matter(store_copy: Path) -> None:
    for row in rows_of(store_copy):
        run = store_copy / row["run_id"]
        edit(run / ROW, started_at="2031-01-01T00:00:00+00:00", finished_at="1999-01-01T00:00:00+00:00")
        for path in (run, *run.iterdir()):
            os.utime(path, (4e9, 4e9))
    assert quickly("store", "check", "--store", store_copy).returncode == 0
    assert quickly("report", "--store", store_copy).returncode == 0


def test_a_store_that_is_none(tmp_path: Path) -> None:
    assert "no such directory" in error_of(quickly("store", "check", "--store", tmp_path / "x"))
    (tmp_path / "file").write_text("")
    assert "is a file" in error_of(quickly("store", "check", "--store", tmp_path / "file"))
