"""The store: what a crash, a full disk, or another process may not do to it."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, asdict, fields, replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from petl_bench import packing
from petl_bench.config import plan
from petl_bench.errors import StoreError, UserError
from petl_bench.store import ADAPTER, ERROR, ROW, SEARCH, SPEC, Store, find_run
from petl_bench.store.claims import CLAIMS
from petl_bench.types import ResultRow, RunSettings, RunSpec, declarations, row_from_dict, row_to_dict
from tests import processes
from tests.conftest import json_lines, mounted, quickly, rows_of
from tests.made import make_row


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return plan(["sweep=none", "task=digits", "adapter=adaptformer"]).runs[0]


def hidden_files(root: Path) -> list[str]:
    """Temporary files: every name of the store that its layout does not know."""
    return [path.name for path in root.rglob(".*") if path.name != CLAIMS]


def test_a_run_comes_back_as_it_was_put(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path / "new" / "store"), make_row(spec, 0.5)
    store.put(spec, row, b"adapter")
    assert store.row(row.run_id) == row
    assert store.spec(row.run_id) == spec
    assert list(store.rows()) == [row]
    assert (store.directory(row.run_id) / ADAPTER).read_bytes() == b"adapter"
    assert json.loads((store.directory(row.run_id) / ROW).read_text()) == row_to_dict(row)
    assert sorted(path.name for path in store.directory(row.run_id).iterdir()) == [ADAPTER, ROW, SPEC]


YOUNGER = sorted(
    {f.name for f in fields(ResultRow) if f.default is not MISSING} - set(declarations(RunSettings))
)


@hypothesis.given(absent=strategies.sets(strategies.sampled_from(YOUNGER)), data=strategies.data())
def test_a_row_without_younger_columns_is_read_with_their_defaults(
    spec: RunSpec, absent: set[str], data: strategies.DataObject
) -> None:
    stored = row_to_dict(make_row(spec, 0.5, settings="share=0", device=data.draw(strategies.text())))
    held = {name: value for name, value in stored.items() if name not in absent}
    row, expected = row_from_dict(held), ResultRow(**held)  # a dataclass's constructor knows the defaults
    assert (row, hash(row), vars(row).keys()) == (expected, hash(expected), vars(expected).keys())
    with pytest.raises(FrozenInstanceError):
        row.acc = 1  # type: ignore[misc]


def test_what_a_search_tried_is_kept_beside_its_row(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    trials = [{"scale": 0.1, "lr": 1e-3, "acc_val": 0.25}, {"scale": 10.0, "lr": 1e-3, "acc_val": None}]
    store.put(spec, row, b"adapter", trials)
    path = store.directory(row.run_id) / SEARCH
    assert json.loads(path.read_text()) == {"trials": trials}
    store.put(spec, row, b"adapter")  # a rerun that searched nothing leaves no search of another
    assert not path.exists()


def test_states(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    assert store.state(row.run_id) == "missing"
    store.open(row.run_id)
    assert store.state(row.run_id) == "missing"  # begun is not done
    store.fail(row.run_id, spec, {"message": "went wrong"})
    assert store.state(row.run_id) == "failed"
    assert store.failure(row.run_id) == {"message": "went wrong", "cause": "error"}
    for cause, state in (("killed", "killed"), ("device", "killed"), ("diverged", "failed")):
        store.fail(row.run_id, spec, {"message": "went wrong", "cause": cause})
        assert store.state(row.run_id) == state
    assert list(store.rows()) == []
    store.put(spec, row, b"adapter")
    assert store.state(row.run_id) == "done"
    assert not (store.directory(row.run_id) / ERROR).exists()
    store.fail(row.run_id, spec, {"message": "again"})  # a rerun that fails takes its old row away
    assert store.state(row.run_id) == "failed"
    assert list(store.rows()) == []


def test_find_takes_a_beginning(tmp_path: Path, spec: RunSpec) -> None:
    store = Store(tmp_path)
    for name in ("aaa111", "aaa222", "bbb333"):
        store.put(spec, replace(make_row(spec, 0.5), run_id=name), b"adapter")
    assert find_run("b", store)[1] == "bbb333"
    assert find_run("aaa2", store)[1] == "aaa222"
    with pytest.raises(UserError, match=r"'aaa' fits several runs of store .*aaa(111|222).*aaa(111|222)"):
        find_run("aaa", store)
    with pytest.raises(UserError, match="'ccc' is no finished run"):
        find_run("ccc", store)


def test_a_missing_store_is_said_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such directory; `petl-bench sweep"):
        list(Store(tmp_path / "nowhere").rows())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"acc"', '"accuracy"'),
        lambda text: "\udc80\udcff",
    ],
    ids=["cut", "empty", "list", "null", "other key", "not text"],
)
def test_a_damaged_row_is_named(tmp_path: Path, spec: RunSpec, damage) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    store.put(spec, row, b"adapter")
    path = store.directory(row.run_id) / ROW
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        list(store.rows())
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)


def test_a_damaged_spec_is_named(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    store.put(spec, row, b"adapter")
    path = store.directory(row.run_id) / SPEC
    path.write_text(path.read_text().replace('"bits"', '"bit"'))
    with pytest.raises(UserError, match="damaged"):
        store.spec(row.run_id)


def test_a_row_that_is_no_json_leaves_no_row(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        store.put(spec, row, b"adapter")
    assert store.state(row.run_id) == "missing"
    assert hidden_files(tmp_path) == []


def test_a_failing_write_leaves_nothing_behind(tmp_path: Path, spec: RunSpec) -> None:
    # The kernel refuses files beyond RLIMIT_FSIZE (EFBIG, once SIGXFSZ is ignored, as Python does).
    store, row = Store(tmp_path), make_row(spec, 0.5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write there: File too large \(.*adapter.safetensors\)"):
            store.put(spec, row, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(store.directory(row.run_id).iterdir()) == []


def test_a_failing_rerun_keeps_the_old_result(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    store.put(spec, row, b"adapter")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StoreError, match="File too large"):
            store.put(spec, replace(row, acc=0.25), bytes(10_000))
        with pytest.raises(StoreError, match="File too large"):
            store.fail(row.run_id, spec, {"message": "x" * 10_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(store.rows()) == [row]
    assert (store.directory(row.run_id) / ADAPTER).read_bytes() == b"adapter"
    assert sorted(path.name for path in store.directory(row.run_id).iterdir()) == [ADAPTER, ROW, SPEC]


# Another process: CHILD puts runs without end, each with an adapter of another length.

CHILD = """
import json, sys
from dataclasses import replace
from pathlib import Path
from petl_bench.store import Store
from petl_bench.types import row_from_dict, run_id, spec_from_dict
root, values = sys.argv[1], json.loads(sys.argv[2])
first, names, count = map(int, sys.argv[3:])
spec, row = spec_from_dict(values["spec"]), row_from_dict(values["row"])
for i in range(count):
    size = 1 + i * 7919 % 100_003
    own = replace(spec, seed=first + i % names)
    name = run_id(own, row.backbone_sha256)
    new = replace(row, run_id=name, seed=own.seed, bytes_adapter=size, bytes_file=size)
    Store(Path(root)).put(own, new, bytes([i % 256]) * size)
    if i == 0:
        print("begun", flush=True)
"""


def child(root: Path, spec: RunSpec, first: int, names: int, count: int) -> subprocess.Popen[str]:
    values = json.dumps({"spec": asdict(spec), "row": asdict(make_row(spec, 0.5))})
    command = [sys.executable, "-c", CHILD, str(root), values, str(first), str(names), str(count)]
    return processes.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_midway(root: Path, spec: RunSpec, names: int, seconds: float) -> None:
    """SIGKILL a child that puts runs, `seconds` after its first one."""
    with child(root, spec, 0, names, 10**9) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_process_leaves_whole_runs_only(tmp_path: Path, spec: RunSpec) -> None:
    moments = random.Random(0)
    for attempt in range(6):
        root = tmp_path / str(attempt)
        kill_midway(root, spec, 10**6, moments.uniform(0, 0.1))
        rows = list(Store(root).rows())
        assert rows
        for row in rows:
            data = (root / row.run_id / ADAPTER).read_bytes()
            assert len(data) == row.bytes_file
            assert len(set(data)) == 1  # all of one put
            assert Store(root).spec(row.run_id) == replace(spec, seed=row.seed)


def test_a_killed_rerun_leaves_no_row_of_another_file(tmp_path: Path, spec: RunSpec) -> None:
    # The child puts one run again and again. A row must never stand beside a file of another put:
    # accuracy and size describe the same artefact.
    moments = random.Random(1)
    for attempt in range(8):
        root = tmp_path / str(attempt)
        kill_midway(root, spec, 1, moments.uniform(0, 0.1))
        for row in Store(root).rows():
            assert (root / row.run_id / ADAPTER).stat().st_size == row.bytes_file


def test_what_a_kill_left_goes_with_the_next_attempt(tmp_path: Path, spec: RunSpec) -> None:
    store, row = Store(tmp_path), make_row(spec, 0.5)
    litter = store.open(row.run_id) / f".{ROW}.abcd1234"  # as tempfile names them
    litter.write_text("half")
    store.open(row.run_id)
    store.put(spec, row, b"adapter")
    assert hidden_files(tmp_path) == []


def test_two_processes_share_a_store(tmp_path: Path, spec: RunSpec) -> None:
    writers = [child(tmp_path, spec, first, 10**6, 60) for first in (0, 1000)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    rows = list(Store(tmp_path).rows())
    assert sorted(row.seed for row in rows) == [*range(60), *range(1000, 1060)]
    assert all((tmp_path / row.run_id / ADAPTER).stat().st_size == row.bytes_file for row in rows)
    assert hidden_files(tmp_path) == []


# A disk that fills up


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 KiB: two runs of five files, each a page of 4 KiB, and no third."""
    yield from mounted(tmp_path / "disk", "size=48k")


def test_a_full_disk_is_said_and_spoils_nothing(small_disk: Path) -> None:
    store = small_disk / "store"
    overrides = ["task=digits", "adapter=linear", "train.epochs=1", "seed=range(0,4)", "launcher=local"]
    done = quickly("sweep", "--store", store, *overrides, "--json")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith(f"error: store {store}: cannot write there: No space left on device")
    assert last.endswith(" of 4 runs are done and kept; the same command continues from there")
    assert "Traceback" not in done.stderr
    finished = json_lines(done.stdout)
    assert 1 <= len(finished) < 4
    assert sorted(row["run_id"] for row in rows_of(store)) == sorted(row["run_id"] for row in finished)
    for row in finished:
        data = (store / row["run_id"] / ADAPTER).read_bytes()
        assert len(data) == row["bytes_file"]
        packing.load(data, row["run_id"])
    assert hidden_files(store) == []
