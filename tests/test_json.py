"""JSON output of every command: each object names its schema, and docs/json.md documents it."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import petl_bench.cli
from petl_bench.store import ADAPTER
from tests.conftest import SWEEP, json_lines, pick, quickly, rows_of
from tests.schemas import schemas


def test_every_schema_is_documented() -> None:
    """Those in the source of the commands, and in the report."""
    used = {"petl-bench/report/1"}
    for path in Path(petl_bench.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name, _, version = node.value.rpartition("/")
                if version.isdigit() and name.replace("-", "").isalpha():
                    used.add(f"petl-bench/{node.value}")
    assert used == set(schemas())


def test_commands_print_what_is_documented(store_copy: Path, tmp_path: Path) -> None:
    """Those whose output other tests do not read; `json_lines` checks it against the page."""
    row = pick(store_copy, task="digits", adapter="lora", bits=1)
    run, file, store = row["run_id"], store_copy / row["run_id"] / ADAPTER, ("--store", store_copy)
    for arguments in (
        ["sweep", *SWEEP, "--cfg", *store],
        ["show", run, "--classes", *store],
        ["inspect", run, *store],
        ["report", *store],
        ["ls", "tuned"],
        ["ls", "keys", "lr"],
        ["data", "info", "vtab_cifar"],
        ["convert", file, "--out", tmp_path / "again.safetensors", "--to", "petl-bench"],
        ["store", "pack", *store, "--filter", "task=digits", "--out", tmp_path / "runs.tgz"],
        ["store", "merge", tmp_path / "runs.tgz", "--store", tmp_path / "other"],
        ["store", "rm", run[:8], "--yes", *store],
    ):
        done = quickly(*arguments, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json_lines(done.stdout), arguments
    assert len(rows_of(store_copy)) == 9


def test_json_of_a_report_is_its_format(finished_store: Path) -> None:
    given = quickly("report", "--store", finished_store, "--json").stdout
    assert given == quickly("report", "--store", finished_store, "--format", "json").stdout
    assert json.loads(given)["schema"] == "petl-bench/report/1"
    done = quickly("report", "--store", finished_store, "--json", "--format", "csv")
    assert (done.returncode, done.stdout) == (2, "")


def test_eval_selects_runs_by_filters(finished_store: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(finished_store, tmp_path / "store")
    done = quickly(
        "eval", "--all", "--store", alone, "--filter", "task=digits", "--filter", "adapter=linear", "--json"
    )
    assert [line["adapter"] for line in json_lines(done.stdout)] == ["linear"]
    done = quickly("eval", rows_of(alone)[0]["run_id"], "--store", alone, "--filter", "bits=1")
    assert "selects runs of --all" in done.stderr
