"""What launchers share: causes of failure, commands that repeat a run, what is said on the way."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from petl_bench.cli.estimate import Costs, kind_of, remaining
from petl_bench.cli.progress import Progress
from petl_bench.config import plan
from petl_bench.errors import DivergedError, UserError
from petl_bench.launch.attempt import cause_of
from petl_bench.store import Store
from petl_bench.types import (
    CAUSES,
    LAUNCHERS,
    LauncherSettings,
    Outcome,
    RaySettings,
    SlurmSettings,
    declarations,
    typed,
)
from tests import processes
from tests.conftest import SCRIPT, error_of, quickly, rows_of
from tests.made import make_row

ROOT = Path(__file__).parent.parent


def error_from_torch(work) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        work()
    return caught.value


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (error_from_torch(lambda: torch.empty(2**52)), "memory"),  # 18 petabytes: the allocator's own words
        (MemoryError("Unable to allocate 24.4 MiB"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "device"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            "device",
        ),
        (torch.AcceleratorError("CUDA error: out of memory"), "memory"),
        (RuntimeError("No CUDA GPUs are available"), "device"),
        (RuntimeError("CUDA driver error: unknown error"), "device"),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), "device"),
        (RuntimeError("Triton Error [CUDA]: device-side assert triggered"), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`"), "error"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), "error"),
        (DivergedError("the loss is not finite at epoch 3: lower train.lr or scale"), "diverged"),
        (error_from_torch(lambda: torch.ones(2) @ torch.ones(3)), "error"),
        (KeyError("weights"), "error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_causes(error: BaseException, cause: str) -> None:
    assert cause_of(error) == cause
    assert cause in CAUSES


LITTLE_MEMORY = """
import resource
from pathlib import Path
from petl_bench.cli import main
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 800 * 2**20,) * 2)
main()
"""


def test_out_of_memory_is_a_failure_of_one_run(tmp_path: Path) -> None:
    # 800 MB hold a small run, and not 250 million float32 weights.
    command = [sys.executable, "-c", LITTLE_MEMORY, "sweep", "--store", str(tmp_path), "sweep=none"]
    command += ["task=digits", "protocol=fixed", "scale=1", "adapter=lora", "bits=32", "hidden=1000000,4"]
    done = processes.run([*command, "train.epochs=1", "launcher=local"])
    assert done.returncode == 1, done.stderr
    assert [row["hidden"] for row in rows_of(tmp_path)] == [4]
    (path,) = tmp_path.glob("*/error.json")
    assert json.loads(path.read_text())["cause"] == "memory"
    assert "1 run failed (1 memory)" in done.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["sweep=pocket", "seed=3"],
        ["sweep=none", "task=digits", "adapter=lora,linear", "bits=1,2", "hidden=4,8", "seed=0,1"],
        ["task=glob(sprites_*)", "adapter=adaptformer", "adapter.dropout=0,0.1", "precision=fp32,bf16"],
        ["sweep=none", "task=digits", "protocol=sealed", "protocol.scales=[0.1,1],[1,10]"],
    ],
)
@pytest.mark.sampled(2)
def test_every_run_has_overrides_that_plan_it_alone(overrides: list[str]) -> None:
    made = plan(overrides)
    assert len(made.alone) == len(made.runs) > 1
    for spec, alone in zip(made.runs, made.alone, strict=True):
        # through a shell, as a user pastes it
        assert plan(shlex.split(shlex.join(alone))).runs == [spec]


def test_settings_of_another_launcher_are_refused(tmp_path: Path) -> None:
    for overrides, right in (
        (["launcher=local", "launcher.workers=2"], "launcher=pool"),
        (["launcher.address=auto"], "launcher=ray"),
        (["launcher=ray", "launcher.partition=gpu"], "launcher=slurm"),
    ):
        message = error_of(quickly("sweep", "--store", tmp_path / "s", "task=digits", *overrides))
        assert f"'{overrides[-1].split('=')[0]}' is no setting of launcher=" in message
        assert right in message


def outside(kind: type[LauncherSettings]) -> Iterator[tuple[str, object]]:
    """Values of each setting of a launcher that no run can use: numbers of all sizes, and hostile text."""
    for key, known in declarations(kind).items():
        if not isinstance(known.default, str):
            numbers = (-2, -1e-9, 1e10, 1e308, 10**30, math.nan, math.inf)
            for value in (*numbers, None, "x", "1 2", [1, 2], 1 if isinstance(known.default, bool) else True):
                yield key, value
    yield "compile", "fast"
    yield from (("device", name) for name in ("", "gpu", "cuda:", "cuda:-1", "cuda:0\n", "cpu:x", "auto "))
    if kind is RaySettings:
        yield "gpus", 1.5
        for address in ("foo", "local", "h:99999", "h:-1", "h:1\n", "a b:1", ":6379", "ray://h:1", "h:٣"):
            yield "address", address
    if kind is SlurmSettings:
        yield "memory_gb", 1e-9
        yield from (("partition", name) for name in ("a b", "a\tb", "a\n#SBATCH --b"))
        for options in (
            "--account='lab",
            "-A lab",
            "account=lab",
            "--a=\n#SBATCH --b",
            "--",
            "--=1",
        ):
            yield "options", options


@pytest.mark.parametrize("kind", [LAUNCHERS.get(name) for name in LAUNCHERS], ids=[*LAUNCHERS])
def test_settings_out_of_range_are_refused(kind: type[LauncherSettings]) -> None:
    for key, value in outside(kind):
        with pytest.raises(UserError) as refused:
            typed(kind, {key: value}, "launcher.")
        assert str(refused.value).startswith(f"launcher.{key}"), refused.value
        assert len(str(refused.value)) < 300


def test_a_setting_out_of_range_is_refused_before_there_is_a_store(tmp_path: Path) -> None:
    message = error_of(quickly("sweep", "--store", tmp_path / "s", "task=digits", "launcher.threads=100000"))
    assert message == "launcher.threads=100000 is out of range: it must be at least 1, at most 1,024"
    assert not (tmp_path / "s").exists()


# Estimates: of one kind bytes are the same, and seconds go with the images and epochs


def test_estimates_follow_kinds_and_epochs() -> None:
    lora, linear = plan(["sweep=none", "task=digits", "adapter=lora,linear", "protocol=fixed"]).runs
    costs = Costs()
    assert costs.seconds(kind_of(lora)) is costs.together({kind_of(lora): 2}) is None
    assert remaining(costs, {kind_of(lora): 1}, {kind_of(lora): 6}, 5.0) is None  # the first one failed
    for seconds in (1.0, 2.0, 60.0):  # the median of three is not moved by a slow one
        costs.add(make_row(lora, 400 / 797, seconds_train=seconds, seconds_eval=0.5, bytes_file=100))
    longer = replace(lora, train=replace(lora.train, epochs=10 * lora.train.epochs))
    assert costs.seconds(kind_of(lora)) == pytest.approx(2.0 + 0.5)
    assert costs.seconds(kind_of(longer)) == pytest.approx(20.0 + 0.5)
    assert costs.size(kind_of(longer)) == 100
    # linear was not run yet: the nearest known kind is LoRA on the same backbone
    assert costs.together({kind_of(lora): 3, kind_of(linear): 2}) == pytest.approx(5 * 2.5)
    assert costs.size(kind_of(linear)) is None
    # 4 of them took 5 s together, so 6 more take 7.5
    assert remaining(costs, {kind_of(lora): 4}, {kind_of(lora): 6}, 5.0) == pytest.approx(7.5)
    assert remaining(costs, {}, {kind_of(lora): 6}, 5.0) is None
    assert remaining(costs, {kind_of(lora): 4}, Counter({kind_of(lora): 0}), 5.0) == 0


@pytest.mark.parametrize(
    ("common", "others"),
    [
        ("adapter=lora bits=1 train.epochs=6", "adapter=lora bits=32 train.epochs=6"),
        ("adapter=lora bits=32 train.epochs=6", "adapter=lora bits=32 train.epochs=9"),
        ("adapter=lora bits=32 train.epochs=9", "adapter=ssf train.epochs=6"),
        ("adapter=ssf train.epochs=6", "adapter=ssf train.epochs=9"),
        ("adapter=linear train.epochs=9", "adapter=lora bits=1 backbone.image_size=64"),
    ],
)
def test_the_nearest_kind_of_finished_runs_tells_the_time(common: str, others: str) -> None:
    """Estimate a run with LoRA at 1 bit in 6 epochs by its kind, then adapter, backbone and epochs."""
    one = ["sweep=none", "task=digits", "protocol=fixed", "scale=1"]
    costs, (wanted,) = Costs(), plan([*one, "adapter=lora", "bits=1", "train.epochs=6"]).runs
    for overrides, each in ((common, 1e-3), (others, 7e-3)):
        (spec,) = plan([*one, *overrides.split()]).runs
        seconds = each * 1000 * spec.train.epochs  # of the 1,000 training images of digits in each epoch
        costs.add(make_row(spec, 0.5, seconds_train=seconds, seconds_eval=0.0))
    assert costs.seconds(kind_of(wanted)) == pytest.approx(6.0)


def test_a_search_takes_the_time_of_its_trainings() -> None:
    one = ["sweep=none", "task=digits", "adapter=lora", "train.epochs=8"]
    fixed, sealed, halving, elsewhere = (
        plan([*one, *more]).runs[0]
        for more in (
            ["protocol=fixed"],
            ["protocol=sealed"],
            ["protocol.rungs=[0.25,0.5]"],
            ["protocol=fixed", "backbone=vit_b16_in21k"],
        )
    )
    costs = Costs()
    costs.add(make_row(fixed, 0.5, seconds_train=8.0, seconds_eval=0.0))  # 1 s for an epoch
    assert costs.seconds(kind_of(sealed)) == pytest.approx(5 * 8 + 8)
    assert costs.seconds(kind_of(halving)) == pytest.approx(5 * 2 + 3 * 4 + 8)
    assert costs.seconds(kind_of(elsewhere)) is None


def test_progress_counts_what_is_done_failed_and_running(tmp_path: Path, capsys) -> None:
    specs = {f"run{i}": s for i, s in enumerate(plan(["sweep=none", "seed=0,1,2,3", "scale=1"]).runs)}
    store = Store(tmp_path)
    store.create()
    progress = Progress(specs, [], store)
    assert progress.state() == "0 running, 0 bytes"
    with store.claims.take("run3", 10), store.claims.take("another", 10):
        row = make_row(specs["run0"], 0.5, bytes_file=1234, run_id="run0")
        progress.advance(Outcome("run0", specs["run0"], row=row))
        progress.advance(Outcome("run1", specs["run1"], error="no luck", cause="error"))
        found = re.fullmatch(r"1 failed, 1 running, 1,234 bytes, \d+ s left", progress.state())
        assert found, progress.state()
    assert "0 running" in progress.state()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("]")[0] for line in lines] == ["[1/4", "[2/4"]
    assert lines[1].endswith("FAILED: no luck")


def test_a_terminal_shows_a_bar_with_what_is_left(tmp_path: Path) -> None:
    command = [SCRIPT, "sweep", "--store", str(tmp_path / "store"), "sweep=none", "task=digits", "seed=0,1,2"]
    command += ["adapter=linear", "train.epochs=1", "launcher=local"]
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160"}
    with processes.Popen(command, stdout=child, stderr=child, stdin=child, env=environment) as process:
        os.close(child)
        text = b""
        while True:
            try:
                chunk = os.read(parent, 4096)
            except OSError:  # Linux says so that the other end is closed
                break
            if not chunk:
                break
            text += chunk
    os.close(parent)
    assert process.returncode == 0, text
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", text).decode()
    assert "3/3" in plain
    assert re.search(r"2/3 .*1 running, [\d,]+ bytes, \d+ s left", plain)


def test_a_worker_that_cannot_import_is_an_error_and_no_wait(tmp_path: Path) -> None:
    for name in ("petl_bench", "conf", "data_manifests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "petl_bench" / "adapters" / "broken.py").write_text("raise RuntimeError('broken adapter')\n")
    command = [sys.executable, "-m", "petl_bench", "sweep", "task=digits", "adapter=linear", "seed=0"]
    done = processes.run(
        [*command, "--store", str(tmp_path / "store")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "worker processes were killed before they had built the models" in done.stderr
    assert "broken adapter" in done.stderr
