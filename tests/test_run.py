"""What a run leaves behind besides its row: events, log, spec; and what its identity covers."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import weakref
from pathlib import Path

import pytest
import timm
import torch

from petl_bench.adapters import ADAPTERS
from petl_bench.launch import preload
from petl_bench.model import assemble
from petl_bench.run.identity import identify
from petl_bench.run.provenance import peak_memory, provenance, reset_peak_memory
from petl_bench.store import Store
from petl_bench.types import AugmentSpec, ProtocolSpec, method, run_id
from tests import tiny
from tests.conftest import events_of, pick, rows_of

EPOCHS = 1
"""train.epochs of the shared sweep."""


def test_tensorboard_reads_one_directory_a_run(finished_store: Path) -> None:
    for row in rows_of(finished_store):
        directory = finished_store / row["run_id"]
        assert len(list(directory.rglob("events.out.tfevents.*"))) == 1
        events = events_of(directory)
        assert {"train/loss", "train/lr", "test/acc", "bytes/file"} <= set(events.Tags()["scalars"])
        assert len(events.Scalars("train/loss")) == EPOCHS
        assert events.Scalars("bytes/file")[0].value == row["bytes_file"]
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_the_spec_beside_a_row_gives_its_run_id(finished_store: Path) -> None:
    store = Store(finished_store)
    for row in rows_of(finished_store):
        assert identify(store.spec(row["run_id"])) == row["run_id"]


def test_identity_covers_what_decides_numbers_and_nothing_else(finished_store: Path) -> None:
    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    spec, sha = Store(finished_store).spec(row["run_id"]), row["backbone_sha256"]
    task = dataclasses.replace(spec.task, place={"root": "elsewhere", "lists": "elsewhere/digits"})
    backbone = dataclasses.replace(
        spec.backbone, weights="elsewhere.safetensors", label="renamed", normalization="half", published=True
    )
    assert run_id(dataclasses.replace(spec, task=task, backbone=backbone), sha) == row["run_id"]
    changed = [
        dataclasses.replace(spec, seed=1),
        dataclasses.replace(spec, scale=spec.scale * 2),
        dataclasses.replace(spec, bits=2),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, fingerprint="0" * 64)),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, resize="crop")),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, shots=1)),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, split_seed=1)),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, drawn=1000)),
        dataclasses.replace(spec, task=dataclasses.replace(spec.task, override="splits.test=40")),
        dataclasses.replace(spec, protocol=ProtocolSpec("sealed")),
        dataclasses.replace(spec, protocol=ProtocolSpec("sealed", scales=[1.0])),
        dataclasses.replace(spec, protocol=ProtocolSpec("sealed", lrs=[1.0])),
        dataclasses.replace(spec, protocol=ProtocolSpec("peek", every=10)),
        dataclasses.replace(spec, train=dataclasses.replace(spec.train, augment=AugmentSpec(crop=True))),
        dataclasses.replace(spec, train=dataclasses.replace(spec.train, lr=spec.train.lr * 2)),
        dataclasses.replace(spec, adapter=dataclasses.replace(spec.adapter, settings={"dropout": 0.2})),
    ]
    ids = {run_id(other, sha) for other in changed} | {run_id(spec, "0" * 64), row["run_id"]}
    assert len(ids) == len(changed) + 2


def test_the_log_ends_with_the_result(finished_store: Path) -> None:
    for row in rows_of(finished_store):
        log = (finished_store / row["run_id"] / "run.log").read_text().splitlines()
        assert f"acc {row['acc']:.4f}, {row['bytes_file']} bytes" in log[-1]


def test_a_row_can_be_sent_to_a_process_without_torch() -> None:
    """Pickle imports the module of every class that it meets; torch's version has a class of torch."""
    assert {type(value) for value in provenance("cpu").values()} <= {str, bool}


def test_a_row_names_the_kernels_and_threads_that_decide_its_last_digits(
    finished_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a sweep have one thread; variables that choose other kernels are named where they are set."""
    capability = torch.backends.cpu.get_cpu_capability()
    assert {row["kernels"] for row in rows_of(finished_store)} == {f"{capability}, 1 thread"}
    assert {row["timm_version"] for row in rows_of(finished_store)} == {timm.__version__}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert str(provenance("cpu")["kernels"]).endswith(", ONEDNN_MAX_CPU_ISA=SSE41")


def test_the_collector_works_again_after_the_imports_of_a_process() -> None:
    before = gc.get_freeze_count()  # of tests.fork_server, if this process is one of its
    importlib.reload(preload)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= before  # else triton reports leaks at the end of the process


def test_a_row_is_strict_json_with_every_column_of_the_contract(finished_store: Path) -> None:
    """Columns that every version has; others may stand beside them."""
    named = """
        run_id suite task group backbone adapter hidden scale quantizer bits head protocol precision seed
        epochs status acc acc_val acc_best_peek n_train n_test bytes_adapter bytes_head bytes_overhead
        bytes_file bits_per_weight params_trainable seconds_train seconds_eval images_per_second
        peak_memory_bytes device data_fingerprint backbone_sha256 version git_revision git_dirty torch_version
        started_at finished_at
    """

    def refuse(constant: str) -> None:
        raise AssertionError(constant)  # NaN and Infinity are not JSON

    for path in finished_store.glob("*/row.json"):
        row = json.loads(path.read_text(), parse_constant=refuse)
        assert set(named.split()) <= set(row)
        assert row["bytes_adapter"] + row["bytes_head"] + row["bytes_overhead"] == row["bytes_file"]
        assert row["bytes_overhead"] <= 512


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures a peak anew")
def test_the_peak_of_memory_is_that_of_the_run_and_not_of_the_process() -> None:
    large = b"x" * 400_000_000
    del large
    before = peak_memory("cpu")
    reset_peak_memory("cpu")
    assert peak_memory("cpu") < before - 200_000_000
    again = b"x" * 400_000_000
    assert len(again)
    assert peak_memory("cpu") > before - 200_000_000


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.sampled(6)
def test_a_model_is_freed_with_its_last_use(name: str) -> None:
    """Without the garbage collector, which may come late: on a GPU dead models would fill the memory."""
    gc.collect()
    gc.disable()
    try:
        spec = tiny.model_spec(name, bits=method(name).unused.get("bits", 1))
        adapted = assemble(spec)
        adapted.prepare("bf16")
        adapted.network(torch.zeros(2, 3, 32, 32)).sum().backward()
        network = weakref.ref(adapted.network)
        del adapted
        assert network() is None
    finally:
        gc.enable()
