"""What README.md shows: its example of a new adapter, run as it stands there; its tables and pictures."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from petl_bench.dev.documentation import filled as made

ROOT = Path(__file__).parent.parent


def test_the_adapter_of_the_readme_trains_packs_reloads_and_agrees(tmp_path: Path) -> None:
    """One .py, one .yaml, nothing else: in a copy of the tree, without touching any other file."""
    for name in ("petl_bench", "conf", "data_manifests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"`((?:petl_bench|conf)/[\w/.]+)`\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    assert [path for path, _ in blocks] == [
        "petl_bench/adapters/sequential.py",
        "conf/adapter/sequential.yaml",
    ]
    for path, content in blocks:
        (tmp_path / path).write_text(content)

    def petl(*arguments: str) -> list[dict]:
        command = [
            sys.executable,
            "-m",
            "petl_bench",
            *arguments,
            "--store",
            str(tmp_path / "store"),
            "--json",
        ]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    overrides = ["adapter=sequential", "task=digits", "bits=1,32", "scale=1", "train.epochs=2"]
    rows = petl("sweep", *overrides, "launcher.workers=1")
    assert {(row["adapter"], row["bits"]) for row in rows} == {("sequential", 1), ("sequential", 32)}
    # 4 blocks x 2 matrices of 64 x 16 weights (conf/backbone/pocket.yaml, hidden=16); 8 bytes of statistics.
    assert {row["bits"]: row["bytes_adapter_raw"] for row in rows} == {
        1: 8 * (64 * 16 // 8 + 8),
        32: 8 * 64 * 16 * 4,
    }
    assert all((row["bytes_adapter"] < row["bytes_adapter_raw"]) == (row["bits"] == 1) for row in rows)
    assert all(row["agrees"] for row in petl("eval", "--all"))


def test_tables_and_pictures_are_those_of_the_kept_results() -> None:
    """`make readme` would change nothing."""
    files = made(ROOT)
    assert files.pop(Path("README.md")) == (ROOT / "README.md").read_text()
    assert files
    for path, text in files.items():
        held = (ROOT / path).read_text()
        (drawn_by,) = re.findall(r"Matplotlib v([\d.]+)", held)
        if drawn_by != matplotlib.__version__:
            pytest.skip(f"{path} was drawn by matplotlib {drawn_by}; this is {matplotlib.__version__}")
        assert text == held
    pictures = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text()))
    assert pictures == {path.as_posix() for path in files}
