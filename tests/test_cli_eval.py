"""`eval`, `inspect` and `ls` as a user meets them."""

from __future__ import annotations

import json
import math
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.cli.agreement import comparison, threads_of
from petl_bench.cli.common import waiting
from petl_bench.cli.ls import Kind, ls
from petl_bench.config import options
from petl_bench.data import manifests
from petl_bench.packing.predictions import compared
from petl_bench.store import ADAPTER, ROW
from tests.conftest import (
    COLUMNS,
    call,
    error_of,
    json_lines,
    petl,
    pick,
    quickly,
    rows_of,
)

# eval


def test_eval_all_agrees_in_a_new_process(finished_store: Path, tmp_path: Path) -> None:
    done = petl("eval", "--all", "--store", finished_store, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    for line, row in zip(lines, rows_of(finished_store), strict=True):
        assert set(line) == COLUMNS | {"acc_row", "agrees", "predictions_differ", "tolerance"}
        assert line["acc"] == line["acc_row"] == row["acc"]
        assert (line["agrees"], line["predictions_differ"]) == (True, 0)


def test_eval_takes_a_run_id_a_directory_or_a_file(
    finished_store: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    first, second, third = rows_of(finished_store)[:3]
    alone = tmp_path / "somewhere.safetensors"
    shutil.copy(finished_store / third["run_id"] / ADAPTER, alone)
    targets = [first["run_id"][:8], finished_store / second["run_id"], alone]
    done = call(capsys, monkeypatch, "eval", *targets, "--store", finished_store, "--json")
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert [line["run_id"] for line in lines] == [first["run_id"], second["run_id"], None]
    assert [line["acc"] for line in lines] == [row["acc"] for row in (first, second, third)]
    assert [line["agrees"] for line in lines] == [True, True, None]  # a lone file has no row to agree with
    for key in (
        "task",
        "suite",
        "group",
        "adapter",
        "hidden",
        "bits",
        "quantizer",
        "head",
        "scale",
        "backbone",
    ):
        assert lines[2][key] == third[key]


def test_eval_tells_a_row_that_does_not_agree(store_copy: Path, capsys, monkeypatch) -> None:
    row = pick(store_copy, task="digits", adapter="linear")
    wrong = row | {"acc": row["acc"] - 0.25}
    (store_copy / row["run_id"] / ROW).write_text(json.dumps(wrong))
    done = call(capsys, monkeypatch, "eval", row["run_id"], "--store", store_copy, "--json")
    assert done.returncode == 1
    (line,) = json_lines(done.stdout)
    assert (line["acc"], line["acc_row"], line["agrees"]) == (row["acc"], wrong["acc"], False)
    assert "1 of 1 disagree" in done.stderr
    done = call(capsys, monkeypatch, "eval", row["run_id"], "--store", store_copy)
    assert done.returncode == 1
    assert "DISAGREES" in done.stdout


def test_eval_on_another_task(finished_store: Path, capsys, monkeypatch) -> None:
    row = pick(finished_store, task="sprites_loc", adapter="lora", bits=1)
    arguments = ["eval", row["run_id"], "--store", finished_store, "--json", "--task"]
    done = call(capsys, monkeypatch, *arguments, "sprites_ori")
    assert done.returncode == 0
    (line,) = json_lines(done.stdout)
    other = manifests()["sprites_ori"]
    assert (line["task"], line["acc_row"], line["agrees"]) == ("sprites_ori", None, None)
    assert (line["n_test"], line["data_fingerprint"]) == (other.splits["test"], other.fingerprint)
    message = error_of(call(capsys, monkeypatch, *arguments, "digits"))
    assert "16 classes" in message
    assert "digits has 10" in message
    assert "did you mean 'digits'" in error_of(call(capsys, monkeypatch, *arguments, "digit"))


def damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {
        "truncated": data[:-1],
        "cut in half": data[:middle],
        "empty": b"",
        "altered": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "altered metadata": data.replace(b"hidden=16", b"hidden=17"),
        "longer": data + b"\0",
        "foreign": b"PK\x03\x04" + data[4:],
        "text": b"not a file of weights\n" * 9,
    }


@pytest.mark.parametrize("kind", list(damaged(bytes(99))))
def test_eval_and_inspect_refuse_damaged_files(
    kind: str, finished_store: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    row = pick(finished_store, task="digits", adapter="adaptformer", bits=1)
    data = (finished_store / row["run_id"] / ADAPTER).read_bytes()
    path = tmp_path / "file.safetensors"
    path.write_bytes(damaged(data)[kind])
    assert path.read_bytes() != data
    for command in ("eval", "inspect"):
        message = error_of(call(capsys, monkeypatch, command, path))
        assert str(path) in message
        assert "adapter file" in message


def test_eval_refuses_a_file_of_other_weights(
    finished_store: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    from petl_bench import packing

    row = pick(finished_store, task="digits", adapter="linear")
    file = packing.load((finished_store / row["run_id"] / ADAPTER).read_bytes(), "")
    file.metadata["backbone_sha256"] = packing.short_checksum("0" * 64)
    path = tmp_path / "other.safetensors"
    path.write_bytes(packing.dump(file))
    assert "other weights of pocket" in error_of(call(capsys, monkeypatch, "eval", path))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--all"),
        (["--all", "abc"], "--all"),
        (["zzz"], "'zzz' is no finished run"),
        (["no/such/file"], "no/such/file: no such file"),
        (["."], "not the directory of a finished run"),
        (["--all", "--store", "nowhere"], "nowhere: no such directory"),
    ],
)
def test_eval_needs_something_to_evaluate(arguments: list[str], named: str, finished_store: Path) -> None:
    store = [] if "--store" in arguments else ["--store", finished_store]
    assert named in error_of(quickly("eval", *arguments, *store, cwd=finished_store))


# inspect


@pytest.mark.parametrize("bits", [1, 32])
def test_inspect_accounts_for_every_byte(bits: int, finished_store: Path) -> None:
    row = pick(finished_store, task="sprites_loc", adapter="lora", bits=bits)
    path = finished_store / row["run_id"] / ADAPTER
    done = petl("inspect", path, "--json")
    assert done.returncode == 0
    (found,) = json_lines(done.stdout)
    promised = (
        "adapter hidden bits quantizer head backbone task scale classes bytes_adapter bytes_adapter_raw"
    )
    promised += " bytes_head bytes_overhead bytes_file bits_per_weight packing tensors"
    assert set(promised.split()) <= set(found)
    shared = ("adapter", "hidden", "bits", "quantizer", "head", "backbone", "task", "scale")
    shared += ("bytes_adapter", "bytes_head", "bytes_overhead", "bytes_file", "bits_per_weight")
    assert {key: found[key] for key in shared} == {key: row[key] for key in shared}
    assert found["classes"] == 16
    assert found["bytes_file"] == path.stat().st_size
    assert found["bytes_adapter"] + found["bytes_head"] + found["bytes_overhead"] == path.stat().st_size
    assert 0 < found["bytes_overhead"] <= 512  # the bound of docs/file-format.md
    assert sum(t["bytes"] for t in found["tensors"]) == found["bytes_adapter"] + found["bytes_head"]
    assert all({"name", "shape", "bits", "bytes", "packing"} <= set(t) for t in found["tensors"])
    # LoRA on the pocket backbone: 4 blocks x (q, v) x (down, up), each 16 x 64 weights
    assert sum(t["name"].count(".") == 2 for t in found["tensors"]) == 16
    # a quantized matrix, raw: its codes and two float32 statistics
    assert found["bytes_adapter_raw"] == 16 * (1024 * bits // 8 + (8 if bits < 32 else 0))
    coded = {t["name"] for t in found["tensors"] if t["packing"] == "coded"}
    assert found["packing"] == ("coded" if bits < 32 else "raw")
    assert (found["bytes_adapter"] < found["bytes_adapter_raw"]) == bool(coded) == (bits < 32)
    for t in found["tensors"]:
        weights = math.prod(t["shape"])
        assert t["bytes_raw"] == weights * t["bits"] // 8 + (8 if t["bits"] < 32 else 0)
        assert (t["bytes"] < t["bytes_raw"]) == (t["name"] in coded)
        assert t["bits_per_weight"] == 8 * t["bytes"] / weights
        assert t["bits_per_weight_raw"] == 8 * t["bytes_raw"] / weights
    assert found["bits_per_weight"] == 8 * found["bytes_adapter"] / (16 * 1024)
    text = quickly("inspect", path.parent).stdout  # a run's directory will do
    assert f"{found['bytes_file']}" in text
    assert found["checksum"] in text


# ls


@pytest.mark.parametrize(
    "kind", ["backbones", "adapters", "quantizers", "heads", "tasks", "protocols", "sweeps"]
)
def test_ls(kind: str) -> None:
    names = options(kind.removesuffix("s"))
    listed = json_lines(quickly("ls", kind, "--json").stdout)
    assert sorted(entry["name"] for entry in listed) == names
    assert all(entry["description"] for entry in listed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # 24 * 768 * 16 weights, 24 * (768 * 16 / 8 + 8) bytes; 768 * (12 * 11 + 2) biases in float32
        ("adaptformer", {"group": "additive", "params": 294_912, "bytes_1_bit": 37_056, "hidden": 16}),
        ("bitfit", {"params": 102_912, "bytes_1_bit": 411_648, "bytes_32_bit": 411_648, "hidden": 0}),
        # 12 * 9 * 768 = 82,944 rows of 16 levels, in 48 tensors
        ("sketch", {"params": 1_327_104, "bytes_1_bit": 166_272, "bytes_32_bit": 5_308_416}),
    ],
)
def test_ls_says_what_adapters_cost_on_vit_b16(name: str, expected: dict) -> None:
    (listed,) = json_lines(quickly("ls", "adapters", name, "--json").stdout)
    assert {key: listed[key] for key in expected} == expected
    words = quickly("ls", "adapters", name).stdout.split()
    assert words[:3] == [name, listed["group"], f"{listed['params']:,}"]


def test_ls_of_adapters_on_a_terminal_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stdout, redirect_stdout(stdout):
        ls(Kind.adapters, "lora")
    with os.fdopen(controller, "rb", buffering=0) as shown:
        lines = shown.read(1 << 12).decode().splitlines()
    assert any("bytes at 1 bit" in line for line in lines[:4]), lines
    (lora,) = [line for line in lines if "lora" in line.split()]
    assert "2,359,296" in lora  # bytes: 4 * 48 * 768 * 16


def test_a_terminal_shows_what_a_command_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("loading torch"):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TERM", "xterm")
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr, redirect_stderr(stderr), waiting("loading torch"):
        pass
    text = b""
    with os.fdopen(controller, "rb", buffering=0) as shown, suppress(OSError):  # Linux says so at the end
        while part := shown.read(1 << 12):
            text += part
    assert b"loading torch" in text


def test_ls_takes_a_pattern() -> None:
    done = quickly("ls", "tasks", "sprites_*")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["sprites_loc", "sprites_ori"]
    listed = json_lines(quickly("ls", "tasks", "digits", "--json").stdout)
    assert listed[0]["classes"] == 10
    assert listed[0]["splits"] == {"train": 800, "val": 200, "test": 797}
    nothing = quickly("ls", "tasks", "zzz*")
    assert nothing.stdout == ""
    assert "zzz*" in nothing.stderr


@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["X, 1 thread", "CUDA 9.0, no TF32"]),
)
def test_a_gpu_and_other_kernels_may_change_one_prediction_in_a_hundred(
    rights: tuple[list[bool], list[bool]], same: bool, has_kept: bool, kernels: str
) -> None:
    """By the counts alone: predictions of two classes, all images being of class 0."""
    labels = np.zeros(len(rights[0]), np.int64)
    kept, found = (compared(np.where(right, 0, 1), labels, 2) for right in rights)
    row = {"acc": kept.accuracy, "predictions": kept.digest, "device": "A", "kernels": kernels}
    here = {"device": "A", "kernels": kernels if same else "Y"}
    result = comparison(row, found, kept if has_kept else None, here)
    differing = sum(one != other for one, other in zip(*rights, strict=True))
    allowed = 0 if same and not kernels.startswith("CUDA") else len(labels) // 100
    assert result["tolerance"] == allowed
    assert result["predictions_differ"] == (differing if has_kept else None)
    changed = differing if has_kept or not allowed else abs(sum(rights[0]) - sum(rights[1]))
    assert result["agrees"] == (changed <= allowed)


def test_threads_are_those_that_a_row_states() -> None:
    texts = {
        "AVX2, 1 thread": 1,
        "AVX512, 12 threads, MKL_CBWR=AVX2": 12,
        "CUDA 9.0, no TF32": None,
        "": None,
    }
    assert {text: threads_of({"kernels": text}) for text in texts} == texts
    assert threads_of({"kernels": None}) is None
