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
from pathlib import Path

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


USERS = ("newcomer", "researcher", "engineer", "reviewer")
BLOCK = re.compile(r"^<!-- wheel -->\n+```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXTENDING = CHECKOUT / "docs" / "extending.md"
Steps = list[tuple[str, object]]
SWEEP = ["sweep=none", "task=surfaces", "adapter=adaptformer", "train.epochs=1", "launcher=local"]
ONE_AFTER_ANOTHER = """
import contextlib, glob, json, os, sys
import petl_bench
from petl_bench.cli import main

print(petl_bench.__file__, file=sys.stderr)
for folder, steps in json.loads(sys.argv[1]):
    os.chdir(folder)
    with open("stdout.txt", "w") as out, contextlib.redirect_stdout(out):
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
os._exit(0)
"""
"""Steps in several folders one after another in one process, which need not import torch for each."""


def execute(installed: Path, home: Path) -> None:
    """Let the installed package do everything that the checks below look at, in one process.

    Each folder in `home` holds what one user has made, and in stdout.txt what the commands printed. The
    folder `plugin` comes last, because the plug-ins in it are loaded for good.
    """
    work: dict[str, Steps] = {"sweep": swept()}
    work |= {user: steps_of(CHECKOUT / "docs" / f"{user}.md") for user in USERS}
    assert all(len(work[user]) >= 6 for user in USERS)
    for name in (*work, "plugin"):
        (home / name).mkdir()
    work["plugin"] = plugin(home / "plugin", home / "cache")
    for label, name in enumerate(["cats", "dogs"]):
        for number in range(60):
            picture = trees.picture(label, number, 40)
            for user in ("newcomer", "engineer"):
                trees.save(picture, home / user / "photos" / name / f"{number}.jpg")
    python = next(p / "bin" / "python" for p in installed.parents if (p / "bin" / "python").exists())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PETL"))}
    environment |= {"PETL_BENCH_CACHE": str(home / "cache")}
    done = subprocess.run(
        [python, "-c", ONE_AFTER_ANOTHER, json.dumps([(str(home / name), work[name]) for name in work])],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{installed / 'petl_bench' / '__init__.py'}\n" in done.stderr


def printed(folder: Path) -> str:
    """Return what the commands printed in a folder."""
    return (folder / "stdout.txt").read_text(encoding="utf-8")


def swept() -> Steps:
    """Return the steps of a user who sweeps, reports and lists."""
    commands = [["sweep", *SWEEP, "--json"], ["report", "--out", "report.txt"], ["ls", "tasks", "--json"]]
    return [("sh", ["petl-bench", *command]) for command in commands]


def plugin(folder: Path, cache: Path) -> Steps:
    """Write the files that the page on extending shows, and return its commands as steps."""
    text = EXTENDING.read_text()
    files = re.findall(r"`(my_methods/[\w/.]+)`:?\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    assert len(files) == 3
    for path, content in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    (block,) = re.findall(r"^<!-- test -->\n+```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    sweep, again, listing = [[*shlex.split(line), "--json"] for line in block.splitlines()]
    manifest = yaml.safe_load(dict(files)["my_methods/data_manifests/leaves.yaml"])
    trees.vtab_task(folder / "data" / "leaves", manifest["classes"], manifest["splits"])
    return [("sh", [*sweep, "launcher=local", f"data.cache={cache}"]), ("sh", again), ("sh", listing)]


def steps_of(page: Path) -> Steps:
    """Return the commands and the Python blocks of a page, in order."""
    found: Steps = []
    for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = [block] if kind == "python" else block.replace("\\\n", " ").splitlines()
        found += [(kind, line if kind == "python" else shlex.split(line)) for line in lines]
    return found


def test_an_installed_wheel_does_what_its_pages_say_in_any_directory(installed: Path, tmp_path: Path) -> None:
    """One test, because importing torch in a process without shared imports is the dearest part of it."""
    execute(installed, tmp_path)
    check_the_sweep(tmp_path)
    check_the_pages_of_all_users(tmp_path)
    check_that_the_plugin_trains_packs_reloads_and_agrees(tmp_path)


def check_the_sweep(executed: Path) -> None:
    folder = executed / "sweep"
    row, *lines = json_lines(printed(folder))
    assert row["task"] == "surfaces"
    assert row["version"] == petl_bench.__version__
    assert row["git_revision"] == ""  # an installed wheel is no checkout
    kept = folder / "results" / row["run_id"]
    assert json.loads((kept / "row.json").read_text()) == row
    assert row["bytes_file"] == (kept / "adapter.safetensors").stat().st_size
    assert "pocket" in (folder / "report.txt").read_text()
    assert len(lines) >= 5


def check_the_pages_of_all_users(executed: Path) -> None:
    """Each in a folder of its own, with the photos that it speaks of."""
    newcomer, researcher, engineer, reviewer = (executed / user for user in USERS)
    assert len(list((newcomer / "results").glob("*/row.json"))) == 3  # linear has no bits
    assert (newcomer / "report.html").stat().st_size > 10_000
    assert "\\toprule" in (researcher / "tables.tex").read_text()
    assert list((researcher / "figures").glob("*.svg"))
    assert (engineer / "pets-timm" / "config.json").is_file()
    assert "2 ['cats', 'dogs']" in printed(engineer)
    assert len(list((reviewer / "received").glob("*/row.json"))) == 2
    assert len(list((reviewer / "received-rerun").glob("*/row.json"))) == 1


def check_that_the_plugin_trains_packs_reloads_and_agrees(executed: Path) -> None:
    """The files and the commands that the page shows, from the wheel, in another folder."""
    found = json_lines(printed(executed / "plugin"))
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
