"""The real command line for tests: `petl` runs it in a new process, `finished_store` is one small sweep."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from petl_bench import plugins
from petl_bench.cli import main
from petl_bench.data import manifests
from petl_bench.types import Cache, ResultRow
from tests import processes, trees
from tests.processes import SCRIPT
from tests.schemas import checked

os.environ.pop("COLUMNS", None)  # as xdist sets it: stdout of the commands is a pipe without a width
LONG = bool(os.environ.get("PETL_BENCH_LONG"))
long = pytest.mark.skipif(not LONG, reason="takes long: `make test-long` runs it")

# A loaded machine is no fault of the code: no deadlines, no complaint about slow data.
hypothesis.settings.register_profile(
    "petl-bench",
    deadline=None,
    max_examples=200 if LONG else 30,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("petl-bench")

pytest.register_assert_rewrite(
    *(
        "tests.agreeing",
        "tests.archives",
        "tests.benches",
        "tests.decoding",
        "tests.engines",
        "tests.verifying",
    )
)

SWEEP = [
    *("task=digits,sprites_loc", "adapter=linear,adaptformer,lora", "bits=1,32", "train.epochs=1"),
    "preset=released",
]
"""2 tasks x (linear + 2 adapters x 2 widths) = 10 runs."""

COLUMNS = {f.name for f in fields(ResultRow)}


def petl(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`petl-bench ARGUMENTS` in a new process, its stdout and stderr apart and as text."""
    return processes.run([SCRIPT, *map(str, arguments)], cwd=cwd, env=os.environ | environment)


def json_lines(text: str) -> list[dict]:
    """Every line of stdout as a JSON object without its schema; fails where one is not as documented."""
    return [checked(json.loads(line)) for line in text.splitlines()]


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a refused command: exit 2, nothing on stdout, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "a bug of petl-bench" not in lines[0]
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the sweep SWEEP, run once for all tests and xdist workers. Copy it to change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    store = shared / "finished_store"
    with (shared / "finished_store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "finished_store.stdout").is_file():
            done = petl("sweep", "--store", store, *SWEEP, "--json", cwd=shared)
            assert done.returncode == 0, done.stderr
            (shared / "finished_store.stdout").write_text(done.stdout)
            (shared / "finished_store.stderr").write_text(done.stderr)
    return store


@pytest.fixture(scope="session")
def engine_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the sweep that engines are tested with, one run after another."""
    from tests.engines import SWEEP as SMALL

    store = tmp_path_factory.mktemp("engines") / "store"
    assert quickly("sweep", "--store", store, *SMALL, "launcher=local").returncode == 0
    return store


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a task of 10 classes, 90 training images and 200 test images, for runs of a moment."""
    home = tmp_path_factory.mktemp("few")
    trees.vtab_task(home / "data", 10, {"train": 70, "val": 20, "test": 200}, ".png")
    data = [f"data.root={home / 'data'}", f"data.cache={home / 'cache'}"]
    return ["sweep=none", "task=folder", *data, "protocol=fixed"]


@pytest.fixture
def store_copy(finished_store: Path, tmp_path: Path) -> Path:
    """A copy of the finished store that a test may change."""
    copy = tmp_path / "store"
    shutil.copytree(finished_store, copy)
    return copy


def rows_of(store: Path) -> list[dict]:
    """All row.json of a store, read without petl_bench."""
    return [json.loads(path.read_text()) for path in sorted(store.glob("*/row.json"))]


def events_of(directory: Path) -> Any:
    """TensorBoard's own reader on a run, whose events lie in a folder with its readable name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = directory.glob("*/*/events.out.tfevents.*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    return events


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """The command's own entry point in this process: torch is loaded once for many small calls."""
    monkeypatch.setattr(sys, "argv", ["petl-bench", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    code = end.value.code
    return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, out, err)


def quickly(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """As `petl`, by the command's own entry point in this process, without the seconds a new one takes."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["petl-bench", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main()
    plugins.use(())  # the next test has none
    code = end.value.code
    return subprocess.CompletedProcess(
        arguments, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue()
    )


def pick(store: Path, **wanted: object) -> dict:
    """The one row of a store that has these values."""
    (row,) = [row for row in rows_of(store) if all(row[key] == value for key, value in wanted.items())]
    return row


def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory; the test is skipped where none can be mounted."""
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root only")
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if (done := subprocess.run(command, check=False, capture_output=True, text=True)).returncode != 0:
        pytest.skip(f"mount refused: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """dtd in JPEG and svhn in PNG, and the file that says how small they are."""
    root, tasks = tmp_path_factory.mktemp("clean") / "root", ["vtab_dtd", "vtab_svhn"]
    return root, trees.vtab(root, [manifests()[name] for name in tasks], fewer=tasks)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all checks of this module: what is kept there may not hide a fault."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def pytest_configure(config: pytest.Config) -> None:
    """With xdist its workers share one server, which starts beside them."""
    if getattr(config.option, "numprocesses", None):
        processes.start_server()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """The workers of xdist come from that server too, so that the heavy imports happen once."""
    for spec in specs:
        if spec.popen and spec.python is None:
            spec.python = shlex.join([sys.executable, processes.__file__])


def pytest_runtest_teardown() -> None:
    """Return to one thread after a test of `bench`: with more, the workers of xdist delay each other."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


FIRST = (
    "test_wheel",
    "test_ray",
    "test_survival",
    "test_slurm",
    "test_interrupts",
    "test_launch",
    "test_bench",
)
"""Files whose tests take long or wait for processes: begun first, they do so beside the others."""


def pytest_collection_finish() -> None:
    """Let the garbage collector of an xdist worker search rarely, and not what was collected."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # others would report leaks of triton at their end
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of a run, on which no test depends; cases of `sampled` tests are left to `make test-long`."""
    items.sort(key=lambda item: item.path.stem not in FIRST)
    functions = defaultdict(list)
    for item in items:
        if not LONG and isinstance(item, pytest.Function) and item.get_closest_marker("sampled"):
            functions[item.path, item.originalname].append(item)
    for cases in functions.values():
        for item in left_out(cases):
            item.add_marker(pytest.mark.skip(reason="one of many cases: `make test-long` runs them all"))


def left_out(cases: list[pytest.Function]) -> Iterator[pytest.Function]:
    """The cases that a `sampled` test leaves out: beyond n of them, or beyond those in which every value of
    every parameter occurs `each` times. Which ones follows from their names alone.
    """
    mark = cases[0].get_closest_marker("sampled")
    assert mark is not None
    kept, seen = 0, Counter[tuple[str, str]]()
    for item in sorted(cases, key=lambda item: hashlib.sha256(item.name.encode()).digest()):
        values = [(name, repr(value)) for name, value in item.callspec.params.items()]
        if kept >= mark.args[0] if mark.args else all(seen[value] >= mark.kwargs["each"] for value in values):
            yield item
            continue
        kept += 1
        seen.update(values)
