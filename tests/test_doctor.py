"""`petl-bench doctor` on this machine, and on one with pretended GPUs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from petl_bench import device
from tests.conftest import json_lines, quickly
from tests.test_pretended_cuda import on_gpu


def findings(*arguments: object, cwd: Path, **environment: str) -> dict[str, dict[str, Any]]:
    done = quickly("doctor", "--json", *arguments, cwd=cwd, **environment)
    (line,) = json_lines(done.stdout)
    held = {one["what"]: one for one in line["findings"]}
    assert done.returncode == (1 if any(one["state"] == "problem" for one in held.values()) else 0), held
    return held


def test_every_subject_is_examined(tmp_path: Path) -> None:
    held = findings(cwd=tmp_path)
    assert {*held} == {
        *("versions", "cpu", "precision", "memory", "shared", "disk", "data", "cache", "downloads", "hub"),
        *("gpu", "slurm", "ray"),
    }
    assert held["cpu"]["facts"]["cores"] == len(os.sched_getaffinity(0))
    assert held["disk"]["facts"]["folder"] == str(tmp_path)
    assert 0 < held["memory"]["facts"]["free_gb"] <= held["memory"]["facts"]["total_gb"]
    assert held["precision"]["facts"]["fp32"] is True
    for one in held.values():
        assert one["state"] == "ok" or one["advice"], one


def test_the_page_fits_eighty_columns(tmp_path: Path) -> None:
    done = quickly("doctor", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert max(map(len, (line for line in lines if str(tmp_path) not in line))) <= 80
    assert lines[-1].startswith(f"{lines[-1].split()[0]} problem")
    assert sum(line.startswith("hint ") for line in lines) == int(lines[-1].split(", ")[1].split()[0])


def test_data_are_found_by_their_folders(tmp_path: Path) -> None:
    assert findings(cwd=tmp_path)["data"]["state"] == "hint"
    (tmp_path / "benchmark/dtd").mkdir(parents=True)
    held = findings(cwd=tmp_path, PETL_BENCH_DATA=str(tmp_path / "benchmark"))["data"]
    assert held["state"] == "ok"
    assert "vtab_dtd" in held["facts"]["tasks"]


def test_caches_are_looked_for_and_not_made(tmp_path: Path) -> None:
    """One that can be made is fine; one that cannot be is named with what to do."""
    absent, file = tmp_path / "none/yet", tmp_path / "file"
    one = findings(cwd=tmp_path, PETL_BENCH_CACHE=str(absent))["cache"]
    assert (one["state"], one["text"]) == ("ok", f"none yet: {absent}")
    assert not absent.parent.exists()
    file.touch()
    held = findings(cwd=tmp_path, PETL_BENCH_CACHE=str(file / "below"))
    assert held["cache"]["text"] == f"decoded images: {file / 'below'} cannot be written"
    assert held["cache"]["advice"] == "name another folder by data.cache or $PETL_BENCH_CACHE"
    assert held["downloads"]["state"] == "ok"


def test_a_gpu_that_is_hidden_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.find_device("auto") != "cpu":
        pytest.skip("torch uses a GPU here")
    monkeypatch.setattr(device, "_GPU_FILES", ("/dev/nul[l]",))
    one = findings(cwd=tmp_path, CUDA_VISIBLE_DEVICES="-1")["gpu"]
    assert (one["state"], one["facts"]) == ("hint", {"files": ["/dev/null"]})
    assert one["text"].startswith("none (CUDA_VISIBLE_DEVICES='-1' hides those of this machine): ")


@pytest.mark.parametrize("why", ["torch does not use it", "little is free"])
def test_what_is_missing_is_told_with_what_to_do(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "little is free":
        monkeypatch.setattr("petl_bench.cli.machine.LEAST_DISK", 1e9)
        one = findings(cwd=tmp_path)["disk"]
        assert (one["state"], one["advice"]) == ("hint", "name a --store and a data.cache elsewhere")
        return
    if device.find_device("auto") != "cpu":
        pytest.skip("torch uses a GPU here")
    monkeypatch.setattr(device, "_GPU_FILES", ("/dev/nul[l]",))  # any device file stands for a GPU's
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = findings(cwd=tmp_path)["gpu"]
    assert one["state"] == "problem"
    assert why in one["text"]
    assert one["facts"] == {"files": ["/dev/null"]}


def test_an_examination_that_fails_is_a_problem_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> list[Any]:
        raise RuntimeError("no answer")

    fails.__name__ = "disk"
    monkeypatch.setattr("petl_bench.cli.machine.disk", fails)
    held = findings(cwd=tmp_path)
    assert (held["disk"]["state"], held["disk"]["text"]) == (
        "problem",
        "cannot be examined: RuntimeError: no answer",
    )
    assert held["ray"]["state"] == "ok"


def test_gpus_are_named_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libcuda.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    done = on_gpu({}, "doctor", "--json")
    found = json.loads(done.stdout)["findings"]
    gpus = [one for one in found if one["what"] == "gpu"]
    assert [one["facts"]["device"] for one in gpus] == ["cuda:0", "cuda:1"]
    assert {one["text"].partition(": ")[2] for one in gpus} == {"Pretended GPU, 86 GB"}
    assert done.stderr.endswith("opened: []\n")
