"""The pages for newcomers, researchers, engineers and reviewers, as written, from an installed wheel."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from tests import trees
from tests.test_wheel import CHECKOUT, installed, pytestmark, wheel

__all__ = ["installed", "pytestmark", "wheel"]


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
