"""Help, usage and `sweep` as a user meets them."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest
import yaml

from petl_bench.config import CONF_DIR, plan
from petl_bench.data import manifests
from petl_bench.store import ADAPTER, ERROR, ROW, SEARCH, SPEC, Store
from tests.conftest import (
    COLUMNS,
    SWEEP,
    error_of,
    json_lines,
    petl,
    pick,
    quickly,
    rows_of,
)

# Help and usage


@pytest.mark.parametrize("command", ["", "sweep", "eval", "report", "ls", "inspect"])
def test_help(command: str) -> None:
    done = petl(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Usage: petl-bench" in done.stdout
    promised = {
        "": ["sweep", "eval", "report", "ls", "inspect", "--debug"],
        "sweep": ["--store", "--dry-run", "--existing", "--fail-fast", "--json"],
        "eval": ["--store", "--all", "--task", "--root", "--json"],
        "report": ["--store", "--format", "--out", "--filter"],
        "ls": ["--json"],
        "inspect": ["--json"],
    }
    assert all(word in done.stdout for word in promised[command])


def test_version() -> None:
    import petl_bench

    assert petl("--version").stdout == f"petl-bench {petl_bench.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("swep", "sweep"),
        ("sweep --stor x", "--store"),
        ("sweep --exsting rerun task=digits", "--existing"),
        ("sweep --existing again", "retry-failed"),
        ("ls task", "tasks"),
        ("ls adapters --jsn", "--json"),
        ("report --format jsn", "json"),
    ],
)
def test_wrong_usage(arguments: str, suggestion: str, tmp_path: Path) -> None:
    done = quickly(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert suggestion in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_override_is_one_line(tmp_path: Path) -> None:
    assert "did you mean 'digits'" in error_of(quickly("sweep", "task=digit", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []  # no store is begun for it


def test_debug_shows_where(tmp_path: Path) -> None:
    done = petl("--debug", "sweep", "bits=9", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: bits=9")


# sweep


def test_a_sweep_keeps_and_prints_its_rows(finished_store: Path) -> None:
    printed = json_lines(Path(f"{finished_store}.stdout").read_text())
    held = rows_of(finished_store)
    assert len(held) == 10  # 2 tasks x (linear + 2 adapters x 2 widths)
    assert sorted(printed, key=lambda row: row["run_id"]) == held
    tables = yaml.safe_load((CONF_DIR / "tuned" / "pocket.yaml").read_text())["tables"]
    tuned = {table["adapter"]: table["lrs"] for table in tables if "lrs" in table}
    for row in held:
        directory = finished_store / row["run_id"]
        assert set(row) == COLUMNS
        assert row["status"] == "done"
        assert 0 <= row["acc"] <= 1
        # a fraction of whole images
        assert row["acc"] * row["n_test"] == pytest.approx(round(row["acc"] * row["n_test"]), abs=1e-6)
        assert row["n_train"] == 1000
        assert row["n_test"] == manifests()[row["task"]].splits["test"]
        assert row["data_fingerprint"] == manifests()[row["task"]].fingerprint
        assert (row["protocol"], row["acc_val"], row["acc_best_peek"]) == ("fixed", None, None)
        assert row["lr"] == tuned.get(row["adapter"], {}).get(row["task"], 5e-3)  # conf/train/pocket.yaml
        assert (row["shots"], row["split_seed"], row["data_override"]) == (0, 0, "")
        assert row["bytes_file"] == (directory / ADAPTER).stat().st_size
        assert row["bytes_file"] == row["bytes_adapter"] + row["bytes_head"] + row["bytes_overhead"]
        assert json.loads((directory / SPEC).read_text())["seed"] == row["seed"]
        assert list(directory.glob("*/*/events.out.tfevents.*"))
        assert not (directory / ERROR).exists()
        assert not (directory / SEARCH).exists()
        assert not list(directory.glob(".*"))


def test_progress_is_one_plain_line_a_run(finished_store: Path) -> None:
    lines = Path(f"{finished_store}.stderr").read_text().splitlines()
    counted = [line for line in lines if re.match(r"\[\d+/10\] ", line)]
    assert [int(re.match(r"\[(\d+)", line)[1]) for line in counted] == list(range(1, 11))
    assert "\x1b" not in "".join(lines)


def test_a_second_sweep_skips_all(finished_store: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_store.rglob("*")}
    done = petl("sweep", "--store", finished_store, *SWEEP, "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert sorted(json_lines(done.stdout), key=lambda row: row["run_id"]) == rows_of(finished_store)
    assert "0 to do" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished_store.rglob("*")} == before


def test_a_rerun_gives_the_same_bytes(finished_store: Path, store_copy: Path) -> None:
    # two of the runs again, one after another in this process where the first sweep used a pool
    again = ["task=digits", "adapter=adaptformer,lora", "bits=1", "train.epochs=1", "launcher=local"]
    done = quickly("sweep", "--store", store_copy, *again, "--existing", "rerun", "--json")
    assert done.returncode == 0, done.stderr
    rows = json_lines(done.stdout)
    assert len(rows) == 2
    for row in rows:
        first, second = (store / row["run_id"] / ADAPTER for store in (finished_store, store_copy))
        assert first.stat().st_mtime_ns != second.stat().st_mtime_ns
        assert first.read_bytes() == second.read_bytes()
        assert row["acc"] == pick(finished_store, run_id=row["run_id"])["acc"]


def test_dry_run_counts_states(store_copy: Path, tmp_path: Path) -> None:
    specs = plan(SWEEP).runs
    by_cell = {(row["task"], row["adapter"], row["bits"]): row["run_id"] for row in rows_of(store_copy)}
    gone, failed = list(by_cell.values())[:2]
    shutil.rmtree(store_copy / gone)
    spec = Store(store_copy).spec(failed)
    Store(store_copy).fail(failed, spec, {"message": "made up"})
    before = sorted(store_copy.rglob("*"))

    def states(*extra: str) -> tuple[list[dict], dict[str, str], set[str]]:
        done = quickly("sweep", "--store", store_copy, "--dry-run", *SWEEP, "--json", *extra, cwd=tmp_path)
        assert done.returncode == 0
        lines = json_lines(done.stdout)
        states = {line["run_id"]: line["state"] for line in lines}
        return lines, states, {line["run_id"] for line in lines if line["to_do"]}

    lines, found, todo = states()
    assert [(line["task"], line["adapter"], line["bits"]) for line in lines] == [
        (s.task.name, s.adapter.name, s.bits) for s in specs
    ]
    assert set(found) == set(by_cell.values())
    assert found == dict.fromkeys(by_cell.values(), "done") | {gone: "missing", failed: "failed"}
    assert todo == {gone}
    assert states("--existing", "retry-failed")[2] == {gone, failed}
    assert states("--existing", "rerun")[2] == set(by_cell.values())
    text = quickly("sweep", "--store", store_copy, "--dry-run", *SWEEP, cwd=tmp_path).stdout
    assert "10 runs, 1 to do" in text
    assert sorted(store_copy.rglob("*")) == before


def test_dry_run_estimates_from_finished_runs(finished_store: Path, tmp_path: Path) -> None:
    overrides = ["sweep=none", "task=surfaces", "adapter=lora", "bits=1", "train.epochs=1", "protocol=fixed"]
    done = quickly("sweep", "--store", finished_store, "--dry-run", *overrides, cwd=tmp_path)
    alike = [r for r in rows_of(finished_store) if r["adapter"] == "lora" and r["bits"] == 1]
    # the median over finished runs of the same kind: of the two here, their mean
    assert f"{int(statistics.median(r['bytes_file'] for r in alike)):,} bytes" in done.stdout
    none = quickly("sweep", "--store", tmp_path / "empty", "--dry-run", *overrides, cwd=tmp_path)
    assert "no finished run of this kind" in none.stdout
    # a run that chooses its scale trains six models: none of the finished ones is of its kind
    other = quickly("sweep", "--store", finished_store, "--dry-run", *overrides[:-1], cwd=tmp_path)
    assert "no finished run of this kind" in other.stdout
    assert not (tmp_path / "empty").exists()


def test_failed_runs_are_kept_and_the_others_go_on(tmp_path: Path) -> None:
    # AdamW moves each weight by about the learning rate a step: 64 features at weights of 1e37 overflow
    # float32 (largest 3.4e38) in the first epoch, so that the loss is not finite.
    common = ["sweep=none", "task=digits", "adapter=linear", "train.lr=1e37,1e-3", "train.epochs=1"]
    common += ["train.warmup_epochs=0", "launcher=local"]
    store = tmp_path / "store"

    def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
        return quickly("sweep", "--store", store, *common, *arguments, "--json")

    done = sweep("--fail-fast")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "stopped at the first failure" in done.stderr
    (failed,) = store.glob(f"*/{ERROR}")
    assert "not finite" in json.loads(failed.read_text())["message"]
    assert rows_of(store) == []
    first = failed.stat().st_mtime_ns

    done = sweep()
    assert done.returncode == 1  # the failed one is still failed, and left alone
    (row,) = json_lines(done.stdout)
    assert rows_of(store) == [row]
    assert row["run_id"] != failed.parent.name
    assert "retry-failed" in done.stderr
    assert failed.stat().st_mtime_ns == first

    kept = (store / row["run_id"] / ROW).stat().st_mtime_ns
    done = sweep("--existing", "retry-failed")
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert "not finite" in done.stderr
    assert failed.stat().st_mtime_ns > first
    assert (store / row["run_id"] / ROW).stat().st_mtime_ns == kept


def test_a_setting_that_the_method_refuses_stops_a_sweep_before_it_starts(tmp_path: Path) -> None:
    """A dropout of 2 is a number like its default, so only the method itself can refuse it."""
    store = tmp_path / "store"
    wrong = ["adapter=lora", "adapter.dropout=2", "task=digits", "bits=1,32"]
    done = quickly("sweep", "--store", store, *wrong, "launcher.workers=1")
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert message.startswith("error: ")
    assert "adapter lora" in message
    assert "'dropout': 2.0" in message
    assert "Traceback" not in done.stderr
    assert [path.name for path in store.rglob("*")] == [".claims"]
