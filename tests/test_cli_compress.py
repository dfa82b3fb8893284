"""`petl-bench compress` on real runs: rows, files, choices on val, refusals and interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import petl_bench
from petl_bench.cli.idle import unused
from petl_bench.config import plan
from petl_bench.config.specs import uncompressed
from petl_bench.run import distillation
from petl_bench.store import ADAPTER, ROW, SEARCH
from petl_bench.types import COMPRESSIONS
from tests import processes
from tests.conftest import SCRIPT, error_of, json_lines, pick, quickly, rows_of
from tests.processes import wait_until

LOCAL = "launcher=local"


def compress(store: Path, name: str, how: str, *more: object) -> subprocess.CompletedProcess[str]:
    return quickly("compress", name, "--how", how, "--store", store, *more, "--json")


def source(store: Path, adapter: str = "lora") -> dict:
    return pick(store, task="digits", adapter=adapter, bits=32)


def test_a_rounded_run_is_an_ordinary_run(store_copy: Path, tmp_path: Path) -> None:
    before, out = source(store_copy), tmp_path / "copy.safetensors"
    done = compress(store_copy, before["run_id"], "ptq", "--bits", 2, "--out", out, LOCAL)
    (row,) = json_lines(done.stdout)
    assert (row["compressed_from"], row["compress"], row["bits"]) == (before["run_id"], "ptq", 2)
    assert (row["acc_source"], row["bytes_source"]) == (before["acc"], before["bytes_file"])
    assert (row["scale"], row["lr"], row["n_train"]) == (before["scale"], before["lr"], before["n_train"])
    file = store_copy / row["run_id"] / ADAPTER
    assert file.stat().st_size == row["bytes_file"] < before["bytes_file"]
    assert out.read_bytes() == file.read_bytes()
    (again,) = json_lines(quickly("eval", row["run_id"], "--store", store_copy, "--json").stdout)
    assert again["agrees"] is True
    (alone,) = json_lines(quickly("eval", out, "--json").stdout)
    assert (alone["acc"], alone["compress"]) == (row["acc"], "ptq")
    assert json_lines(quickly("inspect", out, "--json").stdout)[0]["compress"] == "ptq"
    assert (petl_bench.load(out).info.compress, petl_bench.load(out).info.bits) == ("ptq", 2)
    shown = quickly("show", row["run_id"], "--store", store_copy).stdout
    assert f"compressed_from    {before['run_id']}" in shown
    assert "compress=ptq" in shown.partition("command:")[2]
    assert "ptq" in quickly("report", "--store", store_copy).stdout
    assert quickly("store", "check", "--store", store_copy).returncode == 0
    again = compress(store_copy, before["run_id"][:8], "ptq", "--bits", 2, LOCAL)
    assert json_lines(again.stdout) == [row | {"out": None}]


def test_the_strength_is_chosen_on_val_and_the_file_is_used_as_any_other(store_copy: Path) -> None:
    before = source(store_copy)
    done = compress(store_copy, before["run_id"], "compeft", "--kept", 0.2, "container=short", LOCAL)
    (row,) = json_lines(done.stdout)
    directory = store_copy / row["run_id"]
    trials = json.loads((directory / SEARCH).read_text())["trials"]
    assert [(trial["kept"], trial["strength"]) for trial in trials] == [
        (0.2, strength) for strength in COMPRESSIONS["compeft"].strengths
    ]
    best = max(trials, key=lambda trial: trial["acc_val"])
    assert (row["acc_val"], row["chosen"]) == (best["acc_val"], f"strength={best['strength']:g}")
    assert (row["kept"], row["strength"], row["container"]) == (0.2, 0.0, "short")
    assert (directory / ADAPTER).stat().st_size == row["bytes_file"]
    given = compress(
        store_copy, before["run_id"], "compeft", "--kept", 0.2, "--strength", best["strength"], LOCAL
    )
    (fixed,) = json_lines(given.stdout)
    assert (fixed["acc_val"], fixed["chosen"], fixed["predictions"]) == (None, "", row["predictions"])
    model = petl_bench.load(str(directory), device="cpu")
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 32, 32), np.float32))
    with torch.no_grad():
        torch.testing.assert_close(model.merge().eval()(images), model.network(images), rtol=0, atol=1e-4)
    shared = petl_bench.SharedBackbone("pocket", device="cpu").use(str(directory))
    with torch.no_grad():
        torch.testing.assert_close(shared.network(images), model.network(images), rtol=0, atol=0)


def test_full_fine_tuning_is_trained_and_then_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "STEPS", 4)
    axes = ["adapter=full", "compress=bitdelta", "task=digits", "sweep=none"]
    done = quickly("sweep", "--store", tmp_path, *axes, "train.epochs=1", "protocol=fixed", LOCAL, "--json")
    assert done.returncode == 0, done.stderr
    rows = {(row["compress"], row["float_bits"]): row for row in json_lines(done.stdout)}
    assert rows.keys() == {("none", 32), ("bitdelta", 1)}
    sources = {row["compressed_from"] for row in rows.values() if row["compress"] != "none"}
    assert sources == {rows["none", 32]["run_id"]}
    assert rows["none", 32]["acc"] - rows["bitdelta", 1]["acc"] < 0.1
    assert rows["bitdelta", 1]["bytes_file"] < rows["none", 32]["bytes_file"] / 15
    found = json_lines(quickly("eval", "--all", "--store", tmp_path, "--json").stdout)
    assert [row["agrees"] for row in found] == [True] * 2


def test_a_plan_adds_the_run_that_is_to_be_compressed(store_copy: Path, tmp_path: Path) -> None:
    settings = ["adapter=lora", "task=digits", "train.epochs=1", "--json"]

    def planned(store: Path, *more: str) -> list[tuple[int, str, bool]]:
        lines = json_lines(quickly("sweep", "--dry-run", "--store", store, *settings, *more).stdout)
        return [(line["bits"], line["compress"], line["to_do"]) for line in lines]

    both = planned(store_copy, "compress=none,ptq", "bits=2,32")
    assert sorted(both) == [(2, "none", True), (2, "ptq", True), (32, "none", False)]
    assert planned(store_copy, "compress=ptq", "bits=2") == [(2, "ptq", True)]
    assert planned(tmp_path / "new", "compress=ptq", "bits=2") == [(32, "none", True), (2, "ptq", True)]


def test_a_plan_counts_trainings_and_names_settings_that_the_compression_fixes(tmp_path: Path) -> None:
    def planned(*settings: str) -> tuple[list[str], str]:
        tiny = ["sweep=none", "task=digits", "protocol=fixed", *settings]
        done = quickly("sweep", "--dry-run", "--store", tmp_path / "new", *tiny)
        assert done.returncode == 0, done.stderr
        (count,) = [line for line in done.stdout.splitlines() if line.startswith("2 runs")]
        return [line for line in done.stderr.splitlines() if "no effect" in line], " ".join(count.split())

    warned, count = planned("adapter=lora", "compress=compeft", "kept=0.1", "strength=3", "bits=4")
    assert [line.partition(" has no")[0] for line in warned] == ["warning: bits=4"]
    assert count == "2 runs, 2 to do: 1 training, because 1 run is compressed without a training"
    warned, _ = planned("adapter=full", "compress=bitdelta", "float_bits=4")
    assert [line.partition(" has no")[0] for line in warned] == ["warning: float_bits=4"]
    assert planned("adapter=lora", "compress=ptq", "bits=4", "start=0")[0] == []
    assert planned("adapter=lora", "compress=none,compeft", "bits=32")[0] == []
    of_row = ("quantizer=minmax", "bits=2")  # as `show` prints the command of such a run
    assert planned("adapter=lora", "compress=compeft", "kept=0.1", "strength=3", *of_row)[0] == []


@pytest.mark.parametrize(
    ("adapter", "arguments", "said"),
    [
        ("lora", ["ptq"], "give the bits per weight"),
        ("lora", ["ptq", "--bits", "9"], "bits=9 is out of range"),
        ("lora", ["ptq", "--bits", "32"], "compress nothing"),
        ("lora", ["ptq", "--bits", "2", "--kept", "0.1"], "--kept 0.1: has no use with --how ptq"),
        ("lora", ["compeft", "--bits", "2"], "--bits 2: has no use with --how compeft"),
        ("lora", ["compeft", "--kept", "0"], "--kept 0: must be above 0"),
        ("lora", ["compeft", "--kept", "1.5"], "kept=1.5 is out of range"),
        ("lora", ["bitdelta"], "choose adapter=full"),
        ("adaptformer", ["loraquant"], "needs an adapter of low-rank updates"),
        ("linear", ["ptq", "--bits", "2"], "adapter=linear: has nothing to compress"),
        ("lora", ["ptq", "--bits", "2", "train.epochs=3"], "give settings of the file alone"),
        ("lora", ["ptq", "--bits", "2", "--weights", "w.npz"], "a run states its weights"),
        ("lora", ["ptq", "--bits", "2", "bits=4"], "bits=4: bits=2 is given already"),
        (
            "lora",
            ["ptq", "--bits", "2", "--threads", "2", "launcher.threads=1"],
            "launcher.threads=1 is given",
        ),
        ("lora", ["compeft", "--kept", "0.1", "kept=0.5"], "kept=0.5: kept=0.1 is given already"),
        ("lora", ["ptq", "--bits", "2", "compress=compeft"], "compress=ptq is given already"),
        ("lora", ["ptq", "--bits", "2", "packing=raw", "packing=coded"], "packing=raw is given already"),
        ("lora", ["ptq", "--bits", "2", "--out", "no/such/folder/file"], "no/such/folder: no such folder"),
    ],
)
def test_what_cannot_be_compressed_is_refused(
    finished_store: Path, adapter: str, arguments: list[str], said: str
) -> None:
    bits = {"linear": 32}.get(adapter, 32)
    name = pick(finished_store, task="digits", adapter=adapter, bits=bits)["run_id"]
    assert said in error_of(compress(finished_store, name, *arguments, LOCAL))


def test_runs_with_codes_are_refused(finished_store: Path) -> None:
    name = pick(finished_store, task="digits", adapter="lora", bits=1)["run_id"]
    assert "was trained at 1 bit;" in error_of(compress(finished_store, name, "ptq", "--bits", "2"))


def test_files_that_are_no_runs_are_compressed_with_given_strengths(
    finished_store: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "own.safetensors", tmp_path / "small.safetensors"
    file.write_bytes((finished_store / source(finished_store)["run_id"] / ADAPTER).read_bytes())

    def run(how: str, *more: object) -> subprocess.CompletedProcess[str]:
        return quickly("compress", file, "--how", how, *more, "--json")

    assert "name the file to write with --out" in error_of(run("ptq", "--bits", 2))
    assert "give --kept" in error_of(run("compeft", "--out", out))
    assert "name a run" in error_of(run("bitdelta", "--out", out))
    for how in ("ptq", "loraquant"):
        given = ("--kept", 0.5) if how == "loraquant" else ()
        assert "a whole number, 1 to 8" in error_of(run(how, "--bits", 32, *given, "--out", out))
    assert "settings are for runs" in error_of(run("ptq", "seed=3", "--bits", 2, "--out", out))
    (found,) = json_lines(run("compeft", "--kept", 0.1, "--strength", 3, "--threads", 1, "--out", out).stdout)
    assert (found["run_id"], found["acc"]) == (None, None)
    assert out.stat().st_size == found["bytes_file"]
    assert found["bytes_source"] == file.stat().st_size
    (facts,) = json_lines(quickly("inspect", out, "--json").stdout)
    assert facts["statistics"] == 2  # a size of six bits and three times it fit two bytes exactly
    assert "\nstatistics         2 bytes each\n" in quickly("inspect", out).stdout
    assert "exists already" in error_of(run("ptq", "--bits", 2, "--out", out))
    file.write_bytes(out.read_bytes())
    assert "is compressed already" in error_of(run("ptq", "--bits", 2, "--out", tmp_path / "x"))


def test_files_of_methods_that_do_not_fit_a_compression_are_refused(
    finished_store: Path, tmp_path: Path
) -> None:
    name = pick(finished_store, task="digits", adapter="adaptformer", bits=32)["run_id"]
    file, out = tmp_path / "own.safetensors", tmp_path / "small.safetensors"
    file.write_bytes((finished_store / name / ADAPTER).read_bytes())
    done = quickly("compress", file, "--how", "loraquant", "--kept", 0.9, "--out", out)
    assert "needs an adapter of low-rank updates" in error_of(done)
    assert not out.exists()


def test_methods_that_a_compression_leaves_as_trained_are_named() -> None:
    given = ["adapter=bitfit,full,lora", "compress=none,ptq", "bits=4", "scale=1"]
    said = "compress=ptq leaves bitfit, full as trained, since nothing of them gets fewer than 32 bits"
    assert unused(given, plan(["sweep=none", "task=digits", *given]).runs) == [
        f"{said}; float_bits rounds the floats of bitfit, full"
    ]


@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
def test_a_compressed_run_has_the_scale_of_its_training_at_32_bits(adapter: str) -> None:
    """Tables of conf/tuned for the preset `compact` have another scale at few bits (10 and 30)."""
    given = ["sweep=demo", "task=digits", f"adapter={adapter}", "bits=2,32", "compress=none,ptq"]
    trained, compressed, whole = plan(given).runs
    assert (trained.scale, compressed.scale, whole.scale) == (30.0, 10.0, 10.0)
    assert whole in uncompressed(compressed)


def test_an_interrupted_compression_leaves_no_run(store_copy: Path) -> None:
    name, known = source(store_copy)["run_id"], {path.name for path in store_copy.iterdir()}
    command = [SCRIPT, "compress", name, "--how", "compeft", "--store", str(store_copy)]
    process = processes.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        wait_until(lambda: {path.name for path in store_copy.iterdir()} - known - {".claims"})
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    (left,) = {path for path in store_copy.iterdir() if path.name not in known | {".claims"}}
    assert not {path.name for path in left.iterdir()} & {ROW, ADAPTER}
    assert len(rows_of(store_copy)) == len(known - {".claims"})
    assert quickly("store", "check", "--store", store_copy).returncode == 0
