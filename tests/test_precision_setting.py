"""The settings `precision` and `launcher.compile`: identity, rows, files, `auto`, and wrong values."""

from pathlib import Path

import pytest

from petl_bench.device import find_precision
from petl_bench.model import assemble
from petl_bench.packing import describe, dump, load
from petl_bench.run.execute import read_metadata
from tests import tiny, trees
from tests.conftest import json_lines, pick, quickly
from tests.test_precision import LOWER


@pytest.mark.parametrize("stated", ["fp8", "auto", "int8"])
def test_a_file_of_an_unknown_precision_is_refused(stated, tmp_path):
    adapted = assemble(tiny.model_spec("lora", bits=1))
    adapted.prepare()
    run = tiny.run_spec(tiny.model_spec("lora", bits=1), tiny.recipe())
    file = adapted.file(describe(run, "0" * 64) | {"p": stated})
    path = tmp_path / "a.safetensors"
    path.write_bytes(dump(file))
    for command in ("eval", "inspect"):
        done = quickly(command, path)
        assert done.returncode == 2
        assert "unknown precision" in done.stderr
        assert repr(stated) in done.stderr


def test_the_precision_is_identity_and_stands_in_row_and_file(tmp_path):
    precisions = ["fp32", *LOWER]
    store, sizes = tmp_path / "store", {"train": 64, "val": 16, "test": 32}
    trees.vtab_task(tmp_path / "data", 4, sizes, ".png")
    few = ["sweep=none", "task=folder", f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}"]
    few += ["adapter=lora", "protocol=fixed", "scale=1", "train.epochs=1", "train.warmup_epochs=0"]
    done = quickly("sweep", *few, f"precision={','.join(precisions)}", "launcher=local", "--store", store)
    assert done.returncode == 0, done.stderr
    rows = {precision: pick(store, precision=precision) for precision in precisions}
    assert len({row["run_id"] for row in rows.values()}) == len(precisions)
    assert len({row["data_fingerprint"] for row in rows.values()}) == 1
    for precision, row in rows.items():
        path = store / row["run_id"] / "adapter.safetensors"
        # The file alone says in what it is to be evaluated.
        assert read_metadata(load(path.read_bytes(), "here"), "here").precision == precision
        done = quickly("eval", path, "--task", "folder", "--root", tmp_path / "data", "--json")
        assert done.returncode == 0, done.stderr
        (again,) = json_lines(done.stdout)
        assert (again["acc"], again["precision"]) == (row["acc"], precision)
    titles = [line for line in quickly("report", "--store", store).stdout.splitlines() if "Averages" in line]
    assert sorted(title.count(f", {name},") for title in titles for name in LOWER) == [0, 0, 0, 0, 1, 1]


def test_auto_and_its_meaning_are_one_run(tmp_path):
    few = (
        "sweep",
        "--dry-run",
        "--json",
        "sweep=none",
        "task=digits",
        "protocol=fixed",
        "launcher.device=cpu",
    )
    (settled,) = json_lines(quickly(*few, "precision=auto", "--store", tmp_path).stdout)
    (named,) = json_lines(
        quickly(*few, f"precision={find_precision('auto', 'cpu')}", "--store", tmp_path).stdout
    )
    assert settled == named


def test_an_unknown_precision_is_refused(tmp_path):
    done = quickly("sweep", "precision=fp8", "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "precision=fp8" in done.stderr
    assert "fp32, bf16, int8, auto" in done.stderr


def test_auto_is_what_the_processor_has():
    flags = Path("/proc/cpuinfo").read_text().split()
    has = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    assert find_precision("auto", "cpu") == ("bf16" if has else "fp32")
    assert find_precision("int8", "cpu") == "int8"


def test_an_unknown_way_to_compile_is_refused(tmp_path):
    done = quickly("sweep", "launcher.compile=fast", "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "launcher.compile=fast" in done.stderr
    assert "none, default, reduce-overhead" in done.stderr
