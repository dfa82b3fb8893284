"""The wheel by itself: everything it needs is inside, and it works from any directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import petl_bench
from tests.conftest import json_lines

CHECKOUT = Path(petl_bench.__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").is_file(), reason="these tests build the wheel from a checkout"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(CHECKOUT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("petl_bench-*.whl")
    return wheel


def test_the_wheel_holds_code_configuration_manifests_and_weights(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"petl_bench/{path.relative_to(CHECKOUT)}" for path in (CHECKOUT / "conf").rglob("*.yaml")}
    expected |= {f"petl_bench/data_manifests/{path.name}" for path in CHECKOUT.glob("data_manifests/*.yaml")}
    expected |= {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "petl_bench").rglob("*")
        if path.suffix in (".py", ".safetensors", ".yaml", ".html", ".css", ".js")
    }
    assert len(expected) > 40
    assert expected <= names
    assert not [name for name in names if name.startswith("tests") or name.endswith(".pyc")]


SEPARATOR = "-- end of a command --"
PROGRAM = f"""
import json, os, sys
import petl_bench
from petl_bench.cli import main
print(petl_bench.__file__)
for command in json.loads(sys.argv[1]):
    sys.argv = ["petl-bench", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    if command[0] == "report":
        print({SEPARATOR!r})
sys.stdout.flush()
os._exit(0)
"""
"""Commands one after another in one process, which need not import torch for each."""


def test_an_installed_wheel_sweeps_from_any_directory(wheel: Path, tmp_path: Path) -> None:
    # A new environment: the wheel unpacked (what installing a pure Python wheel is), its dependencies
    # from this interpreter's site-packages. A .pth file adds that folder behind its own and does not run
    # the .pth files in it, so that an editable install there counts for nothing.
    home, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    overrides = ["sweep=none", "task=surfaces", "adapter=adaptformer", "train.epochs=1", "launcher=local"]
    commands = [["sweep", *overrides, "--json"], ["report"], ["ls", "tasks"]]
    done = subprocess.run(
        [python, "-c", PROGRAM, json.dumps(commands)],
        cwd=elsewhere,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, line, *others = done.stdout.splitlines()
    assert where == str(site / "petl_bench" / "__init__.py")
    (row,) = json_lines(line)
    assert row["task"] == "surfaces"
    assert row["version"] == petl_bench.__version__
    assert row["git_revision"] == ""  # an installed wheel is no checkout
    kept = elsewhere / "results" / row["run_id"]
    assert json.loads((kept / "row.json").read_text()) == row
    assert row["bytes_file"] == (kept / "adapter.safetensors").stat().st_size
    table, _, tasks = "\n".join(others).partition(SEPARATOR)
    assert "pocket" in table
    assert tasks.count("\n") >= 5
