"""`petl-bench bench`: names, keys and errors of its interface, and measurements."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from petl_bench.dev.bench import CASES, Measurement, Setting, commands, measure
from petl_bench.dev.bench.case import Case
from petl_bench.store import Store
from tests.conftest import call, error_of, json_lines, long

CONTRACT = {"train_step_fp32", "train_step_bf16", "evaluation_fp32", "evaluation_bf16", "run"}
CONTRACT |= {"quantizer_1bit", "quantizer_2bit", "quantizer_4bit", "quantizer_8bit", "pack_1bit"}
CONTRACT |= {"unpack_1bit", "gemm_fraction_fp32", "gemm_fraction_bf16"}
KEYS = {"name", "ratio", "low", "high", "seconds", "seconds_reference", "device"}


def bench(capsys, monkeypatch, *arguments: object):
    return call(capsys, monkeypatch, "bench", *arguments)


def test_all_names_of_the_contract_are_there(capsys, monkeypatch) -> None:
    done = bench(capsys, monkeypatch, "--list", "--json")
    assert done.returncode == 0
    names = [entry["name"] for entry in json_lines(done.stdout)]
    assert set(names) >= CONTRACT
    assert names == list(CASES)
    assert "train_step_bf16" in bench(capsys, monkeypatch, "--list").stdout


def test_unknown_names_and_devices_are_refused(capsys, monkeypatch) -> None:
    message = error_of(bench(capsys, monkeypatch, "evaluation_fp31"))
    assert "unknown measurement 'evaluation_fp31'" in message
    assert "evaluation_fp32" in message
    message = error_of(bench(capsys, monkeypatch, "pack_1bit", "--device", "abacus"))
    assert "abacus: torch has no such device" in message
    assert bench(capsys, monkeypatch, "pack_1bit", "--rounds", "-1").returncode == 2


STEPS = [f"{kind}_{name}" for kind in ("train_step", "evaluation") for name in ("fp32", "bf16", "int8")]
STEPS += ["train_step_8bit_lora_fp32", "evaluation_lora_fp32", "gemm_fraction_bf16"]
QUICK = [*STEPS, "quantizer_1bit", "quantizer_8bit", "pack_1bit", "unpack_1bit", "gemm_fraction_fp32"]
QUICK += ["growth_bits", "growth_hidden", "growth_images", "growth_runs"]


def test_measurements_as_json(capsys, monkeypatch) -> None:
    tiny = ("--quick", "--rounds", "2", "--threads", "1", "--device", "cpu")
    done = bench(capsys, monkeypatch, *QUICK, "--json", *tiny)
    assert done.returncode == 0, done.stderr
    found = json_lines(done.stdout)
    assert [one["name"] for one in found] == QUICK
    for one in found:
        assert one.keys() >= KEYS
        assert 0 < one["low"] <= one["ratio"] <= one["high"]
        assert one["seconds"] > 0
        assert one["seconds_reference"] > 0
        assert (one["threads"], one["rounds"], one["quick"]) == (1, 2, True)
        assert one["device"] in Path("/proc/cpuinfo").read_text()
        assert one["met"] is None
    held = {one["name"]: (one["bytes"], one["bytes_reference"]) for one in found}
    assert held["pack_1bit"] == (None, None)
    # The comparison with 255 thresholds alone needs as many bytes for each of the 32 x 768 weights.
    assert held["quantizer_8bit"][1] > 255 * 32 * 768 > held["quantizer_8bit"][0] > 0
    assert "says nothing" in done.stderr or "say nothing" in done.stderr
    for name in QUICK:
        assert f"] {name}: " in done.stderr


def test_switching_between_adapters_is_timed(capsys, monkeypatch) -> None:
    names = ("switch", "first_use_coded", "predict")
    done = bench(capsys, monkeypatch, *names, "--json", "--quick", "--rounds", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found = json_lines(done.stdout)
    units = ("seconds", "seconds", "ours / reference")
    expected = [(name, unit, 2) for name, unit in zip(names, units, strict=True)]
    assert [(one["name"], one["unit"], one["rounds"]) for one in found] == expected
    assert all(0 < one["low"] <= one["seconds"] <= one["high"] for one in found[:2])
    assert found[2]["ratio"] > 0


@long
def test_a_whole_run_and_a_command_in_a_table(capsys, monkeypatch) -> None:
    names = ("run", "run_fp32", "run_fp32_one_evaluation", "run_12_blocks")
    done = bench(capsys, monkeypatch, *names, "help", "--quick", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())  # notes are wrapped
    for name in names:
        precision = "[a-z0-9]+" if name == "run" else "fp32"
        theirs = "1 evaluation" if name in names[2:] else "2 evaluations"  # one after each of the 2 epochs
        assert re.search(
            rf" {name}: tiny ViT, 2 blocks, [^:]*, 4 training and 80 test images [^:]*ours in {precision} "
            rf"with 1 evaluation, the reference in fp32 with {theirs} ",
            text,
        )
    assert "--quick" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("│ help")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[0] == "help"
    assert cells[3:5] == ["", ""]  # no reference, no ratio
    assert cells[7:] == ["0.4 s", ""]


def test_rows_to_report(finished_store, tmp_path) -> None:
    run_id = next(Store(finished_store).rows()).run_id
    shutil.copytree(finished_store / run_id, tmp_path / "one" / run_id)
    commands.fill(tmp_path / "store", Store(tmp_path / "one"), 200)
    rows = list(Store(tmp_path / "store").rows())
    cells = {(row.task, row.adapter, row.bits, row.seed) for row in rows}
    assert len(rows) == len({row.run_id for row in rows}) == len(cells) == 200
    assert len({row.task for row in rows}) == 19


def test_a_command_that_fails_is_an_error(tmp_path) -> None:
    with pytest.raises(commands.UserError, match="unknown task 'nowhere'"):
        commands.petl(tmp_path, "sweep", "task=nowhere")


def test_sides_take_turns_in_beginning(monkeypatch) -> None:
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.0)
    order = []
    found = measure.compare(lambda: order.append("a"), lambda: order.append("b"), "cpu", 4)
    assert order == [*"aabb", *"ab", *"ba", *"ab", *"ba"]
    assert found.rounds == 4


def test_medians_and_quartiles() -> None:
    # Ratios 0.1 to 0.5: by linear interpolation the quartiles of five values are the second and the fourth.
    found = measure.paired([(1, 10), (4, 20), (3, 10), (8, 20), (5, 10)])
    assert (found.ratio, found.low, found.high) == (0.3, 0.2, 0.4)
    assert (found.seconds, found.seconds_reference, found.rounds) == (4, 10, 5)
    alone = measure.alone([3.0, 1.0, 2.0])
    assert (alone.ratio, alone.low, alone.high, alone.seconds) == (None, 1.0, 3.0, 2.0)


def test_peak_memory_of_a_known_case() -> None:
    """4,000 and 8,000 bytes are held together; the peak has the 16,000 that replace the 4,000."""

    def work() -> torch.Tensor:
        first, second = torch.empty(1000), torch.empty(2000)
        del first
        third = torch.empty(4000)
        del second
        return third

    assert measure.peak_bytes(work, "cpu") == 8_000 + 16_000


def test_targets_hold_for_the_sizes_they_are_meant_for() -> None:
    case = Case("x", "x", lambda setting: measure.alone([1.0]), target=2.0)
    timing = measure.alone([1.0])
    assert Measurement(case, Setting(), timing).met is True
    assert Measurement(case, Setting(), measure.alone([3.0])).met is False
    assert Measurement(case, Setting(quick=True), timing).met is None
    assert Measurement(case, Setting("cuda:0"), timing).met is None
    faster = measure.paired([(1.0, 10.0)])
    assert Measurement(case, Setting(), faster).met is True
    assert Measurement(case, Setting(), faster).to_dict()["unit"] == "ours / reference"


def test_a_run_of_12_blocks_has_the_whole_backbone() -> None:
    assert Setting().backbone.options == {"depth": 4}
    assert Setting(depth=12).blocks == Setting("cuda:0").blocks == 12
    assert Setting(quick=True, depth=12).blocks == Setting(quick=True).blocks == 2
