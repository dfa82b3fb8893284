"""`petl-bench store ls|rm|merge|pack`: runs are listed, deleted and exchanged, none is lost."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.store import ADAPTER, ERROR, LOG, ROW, SPEC, Store, with_digests
from petl_bench.types import readable_name, spec_from_dict
from tests.conftest import error_of, json_lines, pick, quickly, rows_of


def contents(store: Path) -> dict[str, bytes]:
    """All files of the runs of a store but claims, by path."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.glob("[!.]*/*"))
        if path.is_file()
    }


def hidden(store: Path) -> list[str]:
    return [name for name in os.listdir(store) if name.startswith(".") and name != ".claims"]


def subset(store: Path, names: set[str], target: Path) -> Path:
    """A store of some of the runs of another."""
    target.mkdir()
    for name in names:
        shutil.copytree(store / name, target / name)
    return target


def with_other_accuracy(store: Path, run_id: str) -> None:
    """Replace a run by one that classifies one image less, everything else agreeing with that."""
    shelf = Store(store)
    row, spec = shelf.row(run_id), shelf.spec(run_id)
    changed = dataclasses.replace(row, acc=(round(row.acc * row.n_test) - 1) / row.n_test, predictions="")
    shelf.put(spec, with_digests(changed, spec), (store / run_id / ADAPTER).read_bytes())


def test_list_names_every_run(finished_store: Path) -> None:
    listed = json_lines(quickly("store", "ls", "--store", finished_store, "--json").stdout)
    assert {(run["run_id"], run["acc"]) for run in listed} == {
        (row["run_id"], row["acc"]) for row in rows_of(finished_store)
    }
    names = [run["name"] for run in listed]
    expected = [f"{task}/linear-s0" for task in ("digits", "sprites_loc")]
    expected += [
        f"{task}/{adapter}-h16-b{bits}-s0"
        for task in ("digits", "sprites_loc")
        for adapter in ("adaptformer", "lora")
        for bits in (1, 32)
    ]
    assert names == sorted(names)
    assert set(names) == set(expected)
    text = quickly("store", "ls", "--store", finished_store, "--filter", "bits=1", "--filter", "adapter=lora")
    assert [line.split()[1] for line in text.stdout.splitlines()] == [
        "digits/lora-h16-b1-s0",
        "sprites_loc/lora-h16-b1-s0",
    ]


def test_archive_of_runs_becomes_the_same_store(finished_store: Path, tmp_path: Path) -> None:
    first, second, target = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz", tmp_path / "target"
    for archive in (first, second):
        assert quickly("store", "pack", "--store", finished_store, "--out", archive).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(
        4
    )  # RFC 1952: no time, so that equality does not depend on the second
    done = quickly("store", "merge", first, "--store", target)
    assert (done.returncode, done.stdout) == (0, f"10 runs copied into {target}, 0 were there already\n")
    held = contents(finished_store)
    assert contents(target) == {path: data for path, data in held.items() if "/checkpoints/" not in path}
    again = quickly("store", "merge", first, finished_store, "--store", target)
    assert again.stdout == f"0 runs copied into {target}, 10 were there already\n"
    assert not hidden(target)


@given(data=st.data())
@settings(max_examples=5)
def test_merge_gives_the_union_in_any_order(
    finished_store: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = sorted(row["run_id"] for row in rows_of(finished_store))
    parts = [data.draw(st.sets(st.sampled_from(names), max_size=4)) for _ in range(3)]
    base = tmp_path_factory.mktemp("union")
    stores = [subset(finished_store, part, base / str(number)) for number, part in enumerate(parts)]
    union = set().union(*parts)
    for order in (stores, stores[::-1]):
        target = base / f"target{order[0].name}"
        done = quickly("store", "merge", *order, "--store", target)
        assert done.returncode == 0, done.stderr
        assert contents(target) == {
            path: content for path, content in contents(finished_store).items() if path.split("/")[0] in union
        }


def test_runs_with_other_results_are_refused_by_name(
    finished_store: Path, store_copy: Path, tmp_path: Path
) -> None:
    run_id = pick(store_copy, task="digits", adapter="lora", bits=1)["run_id"]
    with_other_accuracy(store_copy, run_id)
    assert quickly("store", "check", "--store", store_copy).returncode == 0
    target = subset(finished_store, {run_id}, tmp_path / "target")
    before = contents(target)
    done = quickly("store", "merge", store_copy, "--store", target)
    assert done.returncode == 2
    assert run_id in done.stderr
    assert "acc is" in done.stderr
    assert "nothing was copied" in done.stderr
    assert contents(target) == before


@pytest.mark.parametrize("file", [ROW, SPEC, ADAPTER])
def test_damaged_runs_are_refused_by_name(store_copy: Path, tmp_path: Path, file: str) -> None:
    run_id = pick(store_copy, task="digits", adapter="lora", bits=1)["run_id"]
    path = store_copy / run_id / file
    path.write_bytes(path.read_bytes()[:-20])
    done = quickly("store", "merge", store_copy, "--store", tmp_path / "target")
    assert done.returncode == 2
    assert run_id in done.stderr
    assert not contents(tmp_path / "target")


def test_finished_run_replaces_a_failed_one_and_never_the_reverse(
    finished_store: Path, store_copy: Path, tmp_path: Path
) -> None:
    run_id = rows_of(finished_store)[0]["run_id"]
    failed = subset(finished_store, {run_id}, tmp_path / "failed")
    Store(failed).fail(run_id, Store(failed).spec(run_id), {"message": "made up", "cause": "error"})
    held = contents(store_copy)
    assert quickly("store", "merge", failed, "--store", store_copy).returncode == 0
    assert contents(store_copy) == held
    assert quickly("store", "merge", finished_store, "--store", failed).returncode == 0
    assert not (failed / run_id / ERROR).exists()
    assert (failed / run_id / ROW).read_bytes() == (finished_store / run_id / ROW).read_bytes()


def member(name: str, content: bytes = b"{}", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = (
        kind,
        len(content) if kind == tarfile.REGTYPE else 0,
        "/etc/passwd",
    )
    return entry, content


RUN = "0123456789ab"
FOREIGN = {
    "climbing": [member(f"../{RUN}/row.json")],
    "climbing within": [member(f"{RUN}/../../row.json")],
    "absolute": [member(f"/tmp/{RUN}/row.json")],
    "link": [member(f"{RUN}/row.json", kind=tarfile.SYMTYPE)],
    "hard link": [member(f"{RUN}/row.json", kind=tarfile.LNKTYPE)],
    "pipe": [member(f"{RUN}/row.json", kind=tarfile.FIFOTYPE)],
    "folder": [member(RUN, kind=tarfile.DIRTYPE)],
    "other file": [member(f"{RUN}/evil.py")],
    "checkpoint": [member(f"{RUN}/checkpoints/train.safetensors")],
    "other name": [member("run/row.json")],
    "twice": [member(f"{RUN}/row.json"), member(f"{RUN}/row.json")],
    "control characters": [member(f"{RUN}/row.json\x1b[2J")],
}


def archive_of(members: list[tuple[tarfile.TarInfo, bytes]], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(1000))


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_archives_are_refused_and_leave_nothing(tmp_path: Path, kind: str) -> None:
    archive = archive_of(FOREIGN[kind], tmp_path / "foreign.tar.gz")
    target = tmp_path / "inner" / "target"
    message = error_of(quickly("store", "merge", archive, "--store", target))
    assert message.startswith(str(archive))
    assert "\x1b" not in message
    assert os.listdir(target) == [".claims"]
    assert sorted(os.listdir(tmp_path)) == ["foreign.tar.gz", "inner"]


@pytest.mark.parametrize("damage", [cut, overwritten])
def test_damaged_archives_are_refused(
    finished_store: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "target"
    quickly("store", "pack", "--store", finished_store, "--filter", "adapter=lora", "--out", archive)
    damage(archive)
    assert "not a complete archive" in error_of(quickly("store", "merge", archive, "--store", target))
    assert os.listdir(target) == [".claims"]


def test_deletion_needs_consent_and_takes_what_the_filter_names(store_copy: Path) -> None:
    before = {row["run_id"] for row in rows_of(store_copy)}
    chosen = {row["run_id"] for row in rows_of(store_copy) if row["adapter"] == "lora" and row["bits"] == 1}
    command = ("store", "rm", "--store", store_copy, "--filter", "adapter=lora", "--filter", "bits=1")
    refused = quickly(*command)
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    assert {row["run_id"] for row in rows_of(store_copy)} == before
    assert quickly(*command, "--yes").stdout == f"2 runs deleted from {store_copy}\n"
    assert set(os.listdir(store_copy)) == (before - chosen) | {".claims"}


def test_deletion_never_takes_a_running_run(store_copy: Path) -> None:
    run_id = rows_of(store_copy)[0]["run_id"]
    with Store(store_copy).claims.take(run_id, heartbeat=10):
        assert "nothing to delete" in error_of(quickly("store", "rm", run_id, "--store", store_copy, "--yes"))
        everything = quickly("store", "rm", "--store", store_copy, "--filter", "status=done", "--yes")
    assert f"{run_id} " in everything.stderr
    assert "is being executed" in everything.stderr
    assert [row["run_id"] for row in rows_of(store_copy)] == [run_id]


def test_failed_and_unfinished_runs_are_listed_and_deleted(store_copy: Path) -> None:
    failed, unfinished = (row["run_id"] for row in rows_of(store_copy)[:2])
    shelf = Store(store_copy)
    shelf.fail(failed, shelf.spec(failed), {"message": "made up", "cause": "error"})
    name = readable_name(shelf.spec(unfinished))
    for file in (ROW, SPEC):  # a killed process leaves neither
        (store_copy / unfinished / file).unlink()
    (store_copy / "report.html").write_text("a file of the user")
    listed = json_lines(quickly("store", "ls", "--store", store_copy, "--json").stdout)
    assert len(listed) == 10
    of_id = {run["run_id"]: run for run in listed}
    assert of_id[failed]["state"] == "failed"
    assert (of_id[unfinished]["state"], of_id[unfinished]["name"]) == ("unfinished", name)
    assert (
        quickly(
            "store", "rm", "--store", store_copy, "--filter", "state=failed,unfinished", "--yes"
        ).returncode
        == 0
    )
    assert len(rows_of(store_copy)) == 8
    assert failed not in os.listdir(store_copy)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rm"], "one of both is needed"),
        (["rm", "abc", "--filter", "bits=1"], "one of both is needed"),
        (["rm", "nothing"], "is no run"),
        (["rm", ""], "is the beginning of 10 runs"),
        (["ls", "--filter", "bit=1"], "did you mean"),
        (["pack", "--out", "a", "--filter", "bits=7"], "no row has it"),
        (["merge", "nowhere"], "no such file"),
    ],
)
def test_mistakes_are_one_message(
    finished_store: Path, arguments: list[str], expected: str, tmp_path: Path
) -> None:
    before = contents(finished_store)
    assert expected in error_of(quickly("store", *arguments, "--store", finished_store, cwd=tmp_path))
    assert contents(finished_store) == before
    assert not os.listdir(tmp_path)


def test_runs_of_one_name_are_told_apart_by_their_settings(store_copy: Path) -> None:
    shelf = Store(store_copy)
    run_id = pick(store_copy, task="digits", adapter="lora", bits=1)["run_id"]
    spec = shelf.spec(run_id)
    sealed = dataclasses.replace(spec.protocol, name="sealed", scales=(1.0, 10.0))
    other = dataclasses.replace(spec, protocol=sealed, train=dataclasses.replace(spec.train, lr=0.25))
    shelf.fail("0" * 12, other, {"message": "made up", "cause": "error"})
    found = quickly("store", "ls", "--store", store_copy).stdout.splitlines()
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in found if "lora-h16-b1-s0" in line}
    name = "digits/lora-h16-b1-s0"
    assert told["0" * 12].startswith(f"{name} protocol=sealed protocol.scales=[1,10] train.lr=0.25")
    assert told[run_id].startswith(f"{name} protocol=fixed protocol.scales=[] train.lr=")


def test_log_carries_the_readable_name(finished_store: Path) -> None:
    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    assert "digits/lora-h16-b1-s0" in (finished_store / row["run_id"] / LOG).read_text()
    spec = spec_from_dict(json.loads((finished_store / row["run_id"] / SPEC).read_text()))
    assert spec.seed == 0
