"""What commands do with a store that is damaged in part, or that cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.errors import StoreError
from petl_bench.store import ADAPTER, ASIDE, ROW, Store, find_run
from petl_bench.store.check import check, repair
from tests.conftest import SWEEP, error_of, json_lines, mounted, quickly
from tests.made import make_row
from tests.test_store_check import edit, first, flip

SERIAL = [*SWEEP, "launcher=local"]


# The rest of a damaged store


@pytest.fixture
def hurt(store_copy: Path) -> Path:
    """A store of 10 runs: one with half a row, one with an altered file."""
    os.truncate(first(store_copy) / ROW, 300)
    flip(store_copy / pick_lora(store_copy) / ADAPTER, -9)
    return store_copy


def pick_lora(store: Path) -> str:
    whole = [path for path in store.glob(f"*/{ROW}") if path.read_text().endswith("}\n")]
    rows = [json.loads(path.read_text()) for path in whole]
    return next(r["run_id"] for r in rows if (r["task"], r["adapter"], r["bits"]) == ("digits", "lora", 1))


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "damaged run" in line]


def test_commands_go_on_with_the_rest(hurt: Path) -> None:
    for arguments in (["report", "--format", "csv"], ["sweep", "--dry-run", *SWEEP]):
        done = quickly(arguments[0], "--store", hurt, *arguments[1:])
        assert done.returncode == 0, done.stderr
        (line,) = warnings(done)
        assert line.startswith(f"warning: 1 damaged run of store {hurt} is left out (first: {hurt}/")
        assert f"/{ROW}: damaged: " in line
        assert "petl-bench store check" in line
        if arguments[0] == "report":
            assert len(done.stdout.splitlines()) == 1 + 9
        else:
            assert "damaged" in done.stdout
    done = quickly("eval", "--all", "--store", hurt, "--json")
    assert done.returncode == 2
    assert len(json_lines(done.stdout)) == 8
    assert len(warnings(done)) == 1
    lora = pick_lora(hurt)
    assert any(
        line.startswith(f"error: {lora}: {hurt / lora / ADAPTER}") for line in done.stderr.splitlines()
    )
    assert f"1 of 9 runs of store {hurt} cannot be evaluated" in done.stderr
    message = error_of(quickly("eval", first_damaged(hurt), "--store", hurt))
    assert "damaged" in message
    assert "store check --repair" in message


def first_damaged(store: Path) -> str:
    (path,) = [path for path in store.glob(f"*/{ROW}") if not path.read_text().endswith("}\n")]
    return path.parent.name


def test_a_sweep_leaves_damaged_runs_alone_until_they_are_set_aside(hurt: Path) -> None:
    name, lora = first_damaged(hurt), pick_lora(hurt)
    held = (hurt / name / ROW).read_bytes()
    done = quickly("sweep", "--store", hurt, *SERIAL, "--json")
    assert done.returncode == 1
    assert len(json_lines(done.stdout)) == 9
    assert f"1 damaged run of the store skipped (first: {hurt / name / ROW}: damaged" in done.stderr
    assert "store check --repair" in done.stderr
    assert (hurt / name / ROW).read_bytes() == held
    assert quickly("store", "check", "--store", hurt, "--repair").returncode == 0
    done = quickly("sweep", "--store", hurt, *SERIAL)
    assert done.returncode == 0
    assert "8 in store" in done.stderr
    assert "2 to do" in done.stderr
    assert quickly("store", "check", "--store", hurt).returncode == 0
    assert {path.name for path in (hurt / ASIDE).iterdir()} == {name, lora}
    assert (hurt / ASIDE / name / ROW).read_bytes() == held


def test_states(store_copy: Path) -> None:
    store, run = Store(store_copy), first(store_copy)
    assert store.state(run.name) == "done"
    assert store.fault(run.name) == ""
    edit(run / ROW, energy=1)
    assert store.state(run.name) == "damaged"
    assert "newer" in store.fault(run.name)
    shutil.rmtree(run)
    assert store.state(run.name) == "missing"
    run.symlink_to(run.name)
    assert store.state(run.name) == "damaged"


# A store that cannot be written


@pytest.fixture
def read_only(finished_store: Path, tmp_path: Path) -> Iterator[Path]:
    """The finished store on a file system mounted read-only, one run damaged."""
    for disk in mounted(tmp_path / "disk", "size=4m"):
        shutil.copytree(finished_store, disk / "store")
        (disk / "store" / ("0" * 12)).mkdir()
        (disk / "store" / ("0" * 12) / ROW).write_text("{")
        done = subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True)
        if done.returncode != 0:
            pytest.skip("remount refused")
        yield disk / "store"


def test_a_read_only_store_is_read(read_only: Path) -> None:
    run = pick_lora(read_only)
    assert quickly("report", "--store", read_only).returncode == 0
    assert quickly("eval", run, "--store", read_only).returncode == 0
    assert quickly("ls", "adapters").returncode == 0
    assert quickly("store", "check", "--store", read_only).returncode == 1
    assert quickly("sweep", "--store", read_only, *SERIAL).returncode == 0  # nothing to do
    done = quickly("store", "check", "--store", read_only, "--repair")
    assert done.returncode == 2
    assert done.stderr == f"error: store {read_only}: cannot write there: Read-only file system " + (
        f"({ASIDE})\n"
    )
    done = quickly("sweep", "--store", read_only, *SERIAL, "seed=7")
    message = error_of(done)
    assert message == f"store {read_only}: cannot write there: Read-only file system"
    store = Store(read_only)
    row, spec = store.row(run), store.spec(run)
    for write in (
        lambda: store.open(run),
        lambda: store.put(spec, row, b"adapter"),
        lambda: store.fail(run, spec, {"message": "x"}),
        lambda: store.set_aside(run),
    ):
        with pytest.raises(StoreError, match="Read-only file system"):
            write()


@pytest.fixture
def full_disk(finished_store: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk of one finished run and a file named filler, with no byte left."""
    for disk in mounted(tmp_path / "disk", "size=64k"):
        shutil.copytree(first(finished_store), disk / "store" / first(finished_store).name)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        yield disk


def test_a_rerun_on_a_full_disk_keeps_the_old_result(full_disk: Path) -> None:
    store = Store(full_disk / "store")
    (row,) = store.rows()
    run, spec = store.directory(row.run_id), store.spec(row.run_id)
    held = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    adapter = held[ADAPTER]
    for write in (
        lambda: store.put(spec, row, adapter + bytes(20_000)),
        lambda: store.put(spec, row, adapter, [{"scale": 1.0}]),
        lambda: store.put(spec, row, adapter, (), store.predictions(row.run_id)),
        lambda: store.fail(row.run_id, spec, {"message": "x" * 9000}),
    ):
        with pytest.raises(StoreError, match=r"cannot write there: No space left on device \(") as caught:
            write()
        assert f"({row.run_id}/" in str(caught.value)
        assert {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()} == held
    with pytest.raises(StoreError, match=r"there: No space left on device$"):
        store.create()
    (full_disk / "filler").unlink()
    assert quickly("store", "check", "--store", store.root).returncode == 0
    store.put(spec, row, adapter)
    assert store.state(row.run_id) == "done"


def test_a_sweep_into_a_full_disk_trains_nothing(full_disk: Path) -> None:
    done = quickly("sweep", "--store", full_disk / "store", *SERIAL)
    assert error_of(done) == f"store {full_disk / 'store'}: cannot write there: No space left on device"
    assert len(list((full_disk / "store").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file", "is a file, not a directory"),
        ("file/below", "cannot be read: Not a directory"),
        ("pipe", "is a file, not a directory"),
        ("dangling", "is a link to nowhere, which is not there"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("x" * 256, "cannot be read: File name too long"),
        (os.fsdecode(b"\xff"), "its path is not UTF-8, as TensorBoard needs it"),
    ],
)
def test_places_where_no_store_can_be(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("kept")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StoreError) as refused:
        Store(tmp_path / name).check_place()
    assert str(refused.value) == f"store {tmp_path / name}: {said}"
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "name", ["a b", "it's", "[red]x[/red]", "{run_id}%s*?", "ünï-日本", "-dash", "a,b=c", "$X"]
)
def test_places_of_any_name_hold_a_store(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name)
    store.create()
    spec = plan(["sweep=none", "scale=1"]).runs[0]
    row = make_row(spec, 0.5)
    with store.claims.take(row.run_id, 1):
        assert store.claims.running() == {row.run_id}
        store.open(row.run_id)
        store.put(spec, row, b"adapter")
    assert [found.run_id for found in store.rows()] == [row.run_id]
    assert find_run(row.run_id[:6], store)[1] == row.run_id


def test_runs_of_others_are_said_and_stay(finished_store: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        shutil.copytree(finished_store, Path(name) / "store")
        store = Store(Path(name) / "store")
        closed, row, adapter = store.names()[:3]
        for path in (store.root / closed, store.root / row / ROW, store.root / adapter / ADAPTER):
            path.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:  # whom no mode keeps out
                os.seteuid(65534)
            report = check(store, lambda count: None)
            assert {(p.run_id, p.kind) for p in report.problems} == {
                (run, "forbidden") for run in (closed, row, adapter)
            }
            assert repair(store, report) == {}
            assert [store.state(run) for run in (closed, row, adapter)] == ["damaged", "damaged", "done"]
            assert len(list(store.rows(lambda error: None))) == 8
            if user == 0:
                with pytest.raises(StoreError, match="cannot write there: Permission denied"):
                    store.create()
        finally:
            os.seteuid(user)
            (store.root / closed).chmod(0o755)
