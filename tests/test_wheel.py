"""The wheel by itself: everything it needs is inside, it works from any directory, and its pages hold."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import petl_bench
from tests import trees
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


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a new environment: the wheel unpacked, which is what installing it is.

    Its dependencies come from this interpreter's site-packages. A .pth file adds that folder behind its own
    and does not run the .pth files in it, so that an editable install there counts for nothing.
    """
    home = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    assert site.is_dir()
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return site


def run(site: Path, folder: Path, *commands: Sequence[object]) -> list[dict[str, Any]]:
    """Run commands of the installed package one after another in one process, from another folder.

    Returns:
        The lines that they print, which must be JSON objects.
    """
    python = next(
        parent / "bin" / "python" for parent in site.parents if (parent / "bin" / "python").exists()
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PETL"))}
    lists = json.dumps([list(map(str, command)) for command in commands])
    command = [python, "-c", ONE_AFTER_ANOTHER, lists]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert f"{site / 'petl_bench' / '__init__.py'}\n" in done.stderr
    return json_lines(done.stdout)


ONE_AFTER_ANOTHER = """
import json, os, sys
import petl_bench
from petl_bench.cli import main
print(petl_bench.__file__, file=sys.stderr)
for command in json.loads(sys.argv[1]):
    sys.argv = ["petl-bench", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
sys.stdout.flush()
os._exit(0)
"""
"""Commands one after another in one process, which need not import torch for each."""


def test_an_installed_wheel_sweeps_from_any_directory(installed: Path, tmp_path: Path) -> None:
    overrides = ["sweep=none", "task=surfaces", "adapter=adaptformer", "train.epochs=1", "launcher=local"]
    row, *lines = run(
        installed,
        tmp_path,
        ["sweep", *overrides, "--json"],
        ["report", "--out", "report.txt"],
        ["ls", "tasks", "--json"],
    )
    assert row["task"] == "surfaces"
    assert row["version"] == petl_bench.__version__
    assert row["git_revision"] == ""  # an installed wheel is no checkout
    kept = tmp_path / "results" / row["run_id"]
    assert json.loads((kept / "row.json").read_text()) == row
    assert row["bytes_file"] == (kept / "adapter.safetensors").stat().st_size
    assert "pocket" in (tmp_path / "report.txt").read_text()
    assert len(lines) >= 5


EXTENDING = CHECKOUT / "docs" / "extending.md"


def test_the_plugin_of_the_extending_page_trains_packs_reloads_and_agrees(
    installed: Path, tmp_path: Path
) -> None:
    """The files and the commands that the page shows, from the wheel, in another folder."""
    text = EXTENDING.read_text()
    files = re.findall(r"`(my_methods/[\w/.]+)`:?\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    assert len(files) == 3
    for path, content in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (block,) = re.findall(r"^<!-- test -->\n+```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    sweep, again, listing = [[*shlex.split(line)[1:], "--json"] for line in block.splitlines()]
    manifest = yaml.safe_load(dict(files)["my_methods/data_manifests/leaves.yaml"])
    trees.vtab_task(tmp_path / "data" / "leaves", manifest["classes"], manifest["splits"])
    sweep += ["launcher.workers=1", f"data.cache={tmp_path / 'cache'}"]
    found = run(installed, tmp_path, sweep, again, listing)
    rows, evaluated, (plugin,) = found[:2], found[2:4], found[4:]
    assert {(row["adapter"], row["bits"], row["task"]) for row in rows} == {
        ("sequential", 1, "leaves"),
        ("sequential", 32, "leaves"),
    }
    assert {row["recipe_name"] for row in rows} == {"brief"}
    # 4 blocks x 2 matrices of 64 x 16 weights (conf/backbone/pocket.yaml, hidden=16); 8 bytes of statistics.
    assert {row["bits"]: row["bytes_adapter_raw"] for row in rows} == {
        1: 8 * (64 * 16 // 8 + 8),
        32: 8 * 64 * 16 * 4,
    }
    assert all((row["bytes_adapter"] < row["bytes_adapter_raw"]) == (row["bits"] == 1) for row in rows)
    assert [row["agrees"] for row in evaluated] == [True, True]
    assert {row["plugins"] for row in rows} == {f"my_methods {plugin['digest']}"}
    assert plugin["adds"] == [
        "adapter sequential",
        "conf/train/brief.yaml",
        "data_manifests/leaves.yaml",
    ]


USERS = ("newcomer", "researcher", "engineer", "reviewer")
BLOCK = re.compile(r"^<!-- wheel -->\n+```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
AS_WRITTEN = """
import contextlib, glob, json, os, sys
import petl_bench
from petl_bench.cli import main

print(petl_bench.__file__, file=sys.stderr)
for folder, steps in json.loads(sys.argv[1]):
    os.chdir(folder)
    for kind, held in steps:
        print("step:", held, file=sys.stderr)
        if kind == "python":
            exec(compile(held, folder, "exec"), {"__name__": "example"})
            continue
        sys.argv = [name for word in held for name in (glob.glob(word) if "*" in word else [word])]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
sys.stdout.flush()
os._exit(0)
"""


def steps_of(page: Path) -> list[tuple[str, object]]:
    """Return the commands and the Python blocks of a page, in order."""
    found: list[tuple[str, object]] = []
    for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = [block] if kind == "python" else block.replace("\\\n", " ").splitlines()
        found += [(kind, line if kind == "python" else shlex.split(line)) for line in lines]
    return found


def test_the_pages_of_all_users_are_executed_as_written(installed: Path, tmp_path: Path) -> None:
    """Each in a folder of its own, with the photos that it speaks of, one after another in one process."""
    work = []
    for user in USERS:
        folder = tmp_path / user
        folder.mkdir()
        steps = steps_of(CHECKOUT / "docs" / f"{user}.md")
        assert len(steps) >= 6
        work.append((str(folder), steps))
    for label, name in enumerate(["cats", "dogs"]):
        for number in range(60):
            picture = trees.picture(label, number, 40)
            for user in ("newcomer", "engineer"):
                trees.save(picture, tmp_path / user / "photos" / name / f"{number}.jpg")
    python = next(p / "bin" / "python" for p in installed.parents if (p / "bin" / "python").exists())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PETL"))}
    environment |= {"PETL_BENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [python, "-c", AS_WRITTEN, json.dumps(work)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{installed / 'petl_bench' / '__init__.py'}\n" in done.stderr
    newcomer, researcher, engineer, reviewer = (tmp_path / user for user in USERS)
    assert len(list((newcomer / "results").glob("*/row.json"))) == 3  # linear has no bits
    assert (newcomer / "report.html").stat().st_size > 10_000
    assert "\\toprule" in (researcher / "tables.tex").read_text()
    assert list((researcher / "figures").glob("*.svg"))
    assert (engineer / "pets-timm" / "config.json").is_file()
    assert "2 ['cats', 'dogs']" in done.stdout
    assert len(list((reviewer / "received").glob("*/row.json"))) == 2
    assert len(list((reviewer / "received-rerun").glob("*/row.json"))) == 1
