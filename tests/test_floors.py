"""The floors of the house: a file imports only from lower floors, or from its own sub-package."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

import petl_bench
from tests import golden

PACKAGE = Path(petl_bench.__file__).parent
FLOORS = {
    "__init__": -4,  # the version, which every floor may ask for, and the names of the public functions
    "errors": -3,
    "atomic": -3,
    "end_with_parent": -3,
    "plugins": -2,
    "registry": -1,
    "files": 0,
    "layout": 0,
    "types": 0,
    "initialization": 1,
    "device": 1,
    "backbones": 1,
    "quantizers": 1,
    "data": 1,
    "config": 2,
    "adapters": 2,
    "packing": 3,
    "model": 4,
    "store": 4,
    "train": 5,
    "run": 6,
    "launch": 7,
    "report": 7,
    "use": 7,
    "dev": 8,
    "cli": 9,
    "notebook": 10,
    "__main__": 10,
}
"""As docs/architecture.md draws them."""
WRITERS = {"atomic.py", "store/runs.py", "store/claims.py", "store/merging.py"}
WRITERS |= {"dev/pretrain.py", "dev/tune.py", "dev/documentation.py", "dev/upper_bound.py", "cli/report.py"}
WRITERS |= {"data/archive.py", "data/prepare.py", "dev/search.py"}
WRITERS |= {"dev/bench/photos.py", "dev/bench/commands.py", "run/provenance.py"}
"""Modules that write files themselves; all others call petl_bench.atomic. store/ keeps results, tools of
maintainers write their own products, and `report --out` writes to a pipe or device of the user. Two modules
of data/ fill the folder given to `data prepare`: with files of an archive, and with lists in VTAB's layout.
dev/bench/ fills temporary folders with photos and with rows to report. run/provenance.py tells Linux to
measure the peak of memory anew."""
MAX_LINES = 300
PLUGIN = Path(__file__).with_name("plugin")

SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
    if "__pycache__" not in path.parts
}


def room(file: str) -> str:
    """The module or sub-package of petl_bench that a file belongs to."""
    return file.partition("/")[0].removesuffix(".py")


@cache
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def imports(source: str, file: str) -> Iterator[str]:
    """Dotted names of all imports of a file, wherever they stand; relative ones made absolute."""
    package = ["petl_bench", *file.split("/")[:-1]]
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def upward(sources: Mapping[str, str]) -> list[str]:
    """What breaks the floors: files on no floor, and imports that do not run down."""
    rooms = {room(file) for file in sources}
    problems = []
    for file, source in sources.items():
        if file == "__init__.py":  # imports what is public when it is used
            continue
        if room(file) not in FLOORS:
            problems.append(f"{file} is on no floor")
            continue
        for name in imports(source, file):
            parts = name.split(".")
            if parts[0] != "petl_bench":
                continue
            target = parts[1] if len(parts) > 1 and parts[1] in rooms else "__init__"
            if target == room(file) or target not in FLOORS:
                continue
            if FLOORS[target] >= FLOORS[room(file)]:
                problems.append(f"{file} (floor {FLOORS[room(file)]}) imports {name} ({FLOORS[target]})")
    return problems


def module_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the modules that each file imports from its own package, all by their file names."""
    files = {"petl_bench." + file.removesuffix(".py").replace("/", "."): file for file in sources}
    files = {module.removesuffix(".__init__"): file for module, file in files.items()}
    graph: dict[str, set[str]] = {}
    for file, source in sources.items():
        names = list(imports(source, file))
        found = {files.get(name) or files.get(name.rpartition(".")[0]) for name in names}
        graph[file] = {target for target in found if target and target != file and room(target) == room(file)}
    return graph


def cycles(sources: Mapping[str, str]) -> list[str]:
    """Return the files that import themselves by way of other files of their package."""
    graph = module_imports(sources)
    reached = {file: set(targets) for file, targets in graph.items()}
    for _ in graph:
        grown = {file: targets.union(*(reached[t] for t in targets)) for file, targets in reached.items()}
        if grown == reached:
            break
        reached = grown
    return sorted(file for file, targets in reached.items() if file in targets)


def writes(source: str) -> list[str]:
    """Calls of a file that write other files."""
    found = []
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in ("write_text", "write_bytes"):
            found.append(name)
        if isinstance(function, ast.Attribute) and ast.unparse(function) in ("os.replace", "os.rename"):
            found.append(ast.unparse(function))
        if name in ("open", "fdopen"):
            strings = [
                a.value
                for a in [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            if any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in strings):
                found.append(ast.unparse(node))
    return found


def test_imports_run_down_only() -> None:
    assert upward(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "source", "reported"),
    [
        ("types/parts.py", "from petl_bench.run import execute", True),  # up
        ("types/parts.py", "import petl_bench.cli.sweep", True),
        ("types/parts.py", "from petl_bench import run", True),
        ("types/parts.py", "from .. import run", True),
        ("types/run.py", "from petl_bench.config import plan", True),
        ("train/loop.py", "from petl_bench.run import execute", True),
        ("store/runs.py", "def f():\n    from petl_bench import model", True),  # sideways, in a function
        ("report/tables.py", "from ..launch import launch", True),
        ("report/tables.py", "if TYPE_CHECKING:\n    from petl_bench.cli import main", True),
        ("data/base.py", "from petl_bench.packing import load", True),
        ("report/render.py", "from petl_bench.report.tables import Table", False),  # its own sub-package
        ("report/render.py", "from .tables import Table", False),
        ("run.py", "from petl_bench import __version__, data", False),
        ("types/parts.py", "from . import run", False),  # its own run.py
        ("types/parts.py", "from petl_bench.errors import UserError", False),
        ("attic.py", "", True),  # on no floor
    ],
)
def test_the_checker_bites(file: str, source: str, reported: bool) -> None:
    known = {name: "" for name in SOURCES if room(name) in FLOORS}
    problems = upward({**known, file: source})
    assert [p.split()[0] for p in problems] == ([file] if reported else [])


def test_no_package_has_an_import_cycle() -> None:
    assert cycles(SOURCES) == []


@pytest.mark.parametrize(
    ("one", "two", "reported"),
    [
        ("from petl_bench.report.two import f", "from petl_bench.report.one import g", True),
        ("from petl_bench.report import two", "def f():\n    from .one import g", True),
        ("import petl_bench.report.two", "if TYPE_CHECKING:\n    from .one import g", True),
        ("from petl_bench.report.two import f", "from petl_bench.run import one", False),
    ],
)
def test_the_search_for_cycles_works(one: str, two: str, reported: bool) -> None:
    sources = {"report/one.py": one, "report/two.py": two, "report/three.py": "from .one import g"}
    assert cycles(sources) == (["report/one.py", "report/two.py"] if reported else [])


def test_only_config_knows_hydra() -> None:
    users = {
        file
        for file, source in SOURCES.items()
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imports(source, file))
    }
    assert users
    assert {room(file) for file in users} == {"config"}


def test_only_the_store_writes_result_files() -> None:
    assert {file for file, source in SOURCES.items() if writes(source)} <= WRITERS
    assert writes(SOURCES["atomic.py"])


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.write_text('x')", 1),
        ("path.write_bytes(b'x')", 1),
        ("import os\nos.replace(a, b)", 1),
        ("open(path, 'w')", 1),
        ("open(path, mode='ab')", 1),
        ("path.open('x')", 1),
        ("os.fdopen(handle, 'wb')", 1),
        ("open(path)", 0),
        ("path.open('rb')", 0),
        ("store.open('run')", 0),
        ("text.replace('a', 'b')", 0),
    ],
)
def test_the_search_for_writers_bites(source: str, count: int) -> None:
    assert len(writes(source)) == count


def test_files_stay_short() -> None:
    long = {file: count for file, text in SOURCES.items() if (count := len(text.splitlines())) > MAX_LINES}
    assert long == {}


PROBE = """
import json, sys
from petl_bench.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["petl-bench", *command]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("\\n" + json.dumps({"code": code, "modules": sorted(sys.modules)}))
    if code:
        break
"""


def loaded(*arguments: object, cwd: Path) -> set[str]:
    """Top-level modules that a command has imported by its end; it must succeed."""
    return loaded_by([arguments], cwd)


def loaded_by(commands: Sequence[Sequence[object]], cwd: Path) -> set[str]:
    """The same for several commands, one after another in one process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([list(map(str, command)) for command in commands])],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env=os.environ,
    )
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["code"] == 0, done.stderr
    return {name.split(".")[0] for name in end["modules"]}


def test_the_probe_sees_imports(tmp_path: Path) -> None:
    assert {"petl_bench", "hydra"} <= loaded("ls", "tasks", cwd=tmp_path)


@pytest.mark.parametrize("module", ["petl_bench.data", "petl_bench.packing", "petl_bench.types"])
def test_data_and_packing_are_imported_without_torch_and_hydra(module: str, tmp_path: Path) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ)
    heavy = {"torch", "timm", "hydra", "omegaconf", *(["scipy"] if module == "petl_bench.packing" else [])}
    assert not heavy & set(done.stdout.split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"torch", "timm", "hydra", "omegaconf", "pandas", "numpy", "rich"}
    assert not loaded("--help", cwd=tmp_path) & heavy


def test_commands_that_train_nothing_do_without_torch(finished_store: Path, tmp_path: Path) -> None:
    run = next(finished_store.glob("*/row.json")).parent
    commands = [
        ["sweep", "--dry-run", "--store", finished_store, "task=digits"],
        ["report", "--store", finished_store, "--against", "published"],
        ["convert", golden.CHECKPOINTS[0].bin, tmp_path / "converted", "--to", "petl-bench"],
        ["ls", "backbones"],
        ["sweep", "--dry-run", "--config-dir", PLUGIN, "task=digits", "adapter=plain_lora", "scale=1"],
        ["inspect", run],
        ["show", run],
        ["compare", run, run],
        ["store", "check", "--store", finished_store],
    ]
    assert not loaded_by(commands, tmp_path) & {"torch", "timm"}
