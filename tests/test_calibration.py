"""Methods that look at the training images before the training, in whole runs."""

import time
from dataclasses import replace

import pytest

from petl_bench import packing
from petl_bench.run import calibration
from petl_bench.run.execute import execute
from petl_bench.run.identity import job_of
from petl_bench.run.training import train
from tests.test_protocols import made


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return made(tmp_path_factory.mktemp("vtab"), {"train": 48, "val": 16, "test": 16})


def spec_of(tree, adapter, **changes):
    if adapter == "lt_sft":
        changes = {"adapter__epochs": 1} | changes
    return tree.spec(adapter=adapter, scale=1, protocol="fixed", precision="fp32", **changes)


@pytest.mark.parametrize("adapter", ["corda", "lt_sft"])
def test_its_time_is_part_of_the_training(adapter, tree, monkeypatch, tmp_path):
    spec = spec_of(tree, adapter)
    seconds = []
    for name in ("observe", "fit"):
        plain = getattr(calibration.Calibration, name)

        def timed(self, *given, plain=plain):
            begin = time.perf_counter()
            plain(self, *given)
            seconds.append(time.perf_counter() - begin)

        monkeypatch.setattr(calibration.Calibration, name, timed)
    trained = train(spec, tree.runtime())
    assert len(seconds) == 1
    assert trained.seconds > seconds[0]


def test_positions_are_those_that_moved_and_no_random_ones(tree):
    moved = train(spec_of(tree, "lt_sft", bits=32), tree.runtime()).adapted.adapter
    random_positions = spec_of(tree, "lt_sft", bits=32, adapter__selection="random")
    random = train(random_positions, tree.runtime()).adapted.adapter
    assert moved.attached.codes
    assert not random.attached.codes
    found = [tensor for tensor in moved.store() if tensor.entry.name.startswith("gaps")]
    assert any(tensor.codes is not None and tensor.codes.any() for tensor in found)


@pytest.mark.parametrize("adapter", ["corda", "lt_sft"])
def test_a_run_is_the_same_each_time_and_its_file_holds_what_was_found(adapter, tree, tmp_path):
    spec = spec_of(tree, adapter)
    rows = [execute(job_of(spec), tree.runtime(tmp_path / name)) for name in ("one", "two")]
    files = [
        (tmp_path / name / row.run_id / "adapter.safetensors").read_bytes()
        for name, row in zip(("one", "two"), rows, strict=True)
    ]
    assert files[0] == files[1]
    held = {tensor.entry.name for tensor in packing.load(files[0], "one").adapter}
    assert held >= ({"0.qkv.down.start"} if adapter == "corda" else {"gaps.0"})


@pytest.mark.parametrize("adapter", ["corda", "lt_sft"])
def test_a_training_that_goes_on_does_not_calibrate_again(adapter, tree, monkeypatch, tmp_path):
    spec = spec_of(tree, adapter)
    runtime = replace(tree.runtime(), checkpoint=1)
    first = train(spec, runtime, checkpoints=tmp_path)
    monkeypatch.setattr("petl_bench.run.training.calibrate", lambda *given: pytest.fail("once is enough"))
    again = train(spec, runtime, checkpoints=tmp_path)
    assert again.earlier_seconds > 0
    for one, two in zip(first.adapted.adapter.store(), again.adapted.adapter.store(), strict=True):
        assert one.to_bytes() == two.to_bytes()
