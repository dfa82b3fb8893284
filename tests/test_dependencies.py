"""The declared dependencies: what is imported is declared, and the lowest declared versions work."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import petl_bench
from tests.conftest import json_lines, long

CHECKOUT = Path(petl_bench.__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").is_file(), reason="these tests read the declarations of a checkout"
)


def declared(*extras: str) -> dict[str, Requirement]:
    """Return the requirements of the project and of some extras by canonical name."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(x for e in extras for x in project["optional-dependencies"][e])]
    return {canonicalize_name((found := Requirement(line)).name): found for line in lines}


def lowest(requirement: Requirement) -> Version:
    (bound,) = [each.version for each in requirement.specifier if each.operator == ">="]
    return Version(bound)


def imported(folder: Path) -> set[str]:
    """Return the top-level modules that files of a folder import, inside functions too."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"petl_bench", "tests"}


@pytest.mark.parametrize(
    ("folder", "extras"), [("petl_bench", ("ray", "slurm", "onnx")), ("tests", ("dev",))]
)
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    distributions = packages_distributions()
    names = {
        name: {canonicalize_name(d) for d in distributions[name]} for name in imported(CHECKOUT / folder)
    }
    assert {name: found for name, found in names.items() if not found & declared(*extras).keys()} == {}


def test_tested_versions_and_installed_ones_are_within_the_declared_bounds() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pinned: Mapping[str, str] = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, requirement in declared("ray", "slurm", "dev").items():
        assert requirement.specifier.contains(pinned[name]), name
        assert requirement.specifier.contains(version(name)), name
        assert lowest(requirement) <= Version(pinned[name]), name


@long
def test_the_lowest_declared_versions_work(tmp_path: Path) -> None:
    """They are installed together; the demo, reports, evaluations, a sweep on Ray and some tests run."""
    home, python = tmp_path / "environment", str(tmp_path / "environment/bin/python")
    uv = str(Path(sys.executable).with_name("uv"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(uv, "venv", "--python", sys.executable, str(home))
    run(uv, "pip", "install", "--resolution", "lowest-direct", "--python", python, f"{CHECKOUT}[ray,slurm]")
    listed = json.loads(run(uv, "pip", "list", "--format", "json", "--python", python))
    found = {canonicalize_name(each["name"]): Version(each["version"]) for each in listed}
    assert {name: found[name] for name in declared("ray", "slurm")} == {
        name: lowest(requirement) for name, requirement in declared("ray", "slurm").items()
    }
    petl = str(home / "bin/petl-bench")
    rows = json_lines(run(petl, "sweep", "train.epochs=1", "train.warmup_epochs=0", "--json"))
    assert len(rows) == 35
    assert "adaptformer" in run(petl, "report")
    run(petl, "report", "--format", "html", "--out", "report.html")
    run(petl, "eval", "--all")
    run(petl, "ls", "adapters")
    run(petl, "sweep", "sweep=none", "adapter=linear", "train.epochs=1", "launcher=ray", "--store", "ray")
    run(uv, "pip", "install", "--python", python, "pytest", "hypothesis")
    names = ("adapter_file", "report", "statistics", "tensorboard")
    files = [str(CHECKOUT / f"tests/test_{name}.py") for name in names]
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
