"""Benchmark of a complete run on both sides, from image files to an accuracy."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from petl_bench.dev.bench import ours, photos, reference_loop
from petl_bench.dev.bench.case import CLASSES, Setting, case
from petl_bench.dev.bench.measure import Timing, paired, seconds_of
from petl_bench.dev.bench.reference import Reference
from petl_bench.device import find_precision
from petl_bench.errors import counted

TEST_PER_TRAINING_IMAGE = 20
"""Test images per training image: VTAB-1K's tasks have 1,000 training and on average 20,300 test images."""


def run(setting: Setting, precision: str, evaluations: int, depth: int = 0) -> Timing:
    """Time complete runs without a warm-up, because decoding and evaluation are part of a run.

    Args:
        setting: device and sizes.
        precision: precision of our side; that of the reference is fp32.
        evaluations: number of evaluations of the reference; we make one.
        depth: number of blocks of the backbone; 0 for that of the setting.
    """
    setting = replace(setting, depth=depth)
    precision = find_precision(precision, setting.device)
    epochs = 2 if setting.quick else 100
    training = setting.batch if setting.on_gpu else 4
    test, classes = training * TEST_PER_TRAINING_IMAGE, min(CLASSES, training - photos.validation(training))
    taken = []
    with tempfile.TemporaryDirectory(prefix="petl-bench-") as folder:
        data = Path(folder) / "data"
        photos.write_task(data, training, test, classes)
        for number in range(setting.rounds(1)):
            scratch = Path(folder) / str(number)
            mine = partial(ours.run, data, scratch, setting, precision, epochs, training)
            theirs = partial(reference_run, data, classes, setting, epochs, evaluations, training)
            order = (mine, theirs) if number % 2 == 0 else (theirs, mine)
            found = {work: seconds_of(work, setting.device) for work in order}
            taken.append((found[mine], found[theirs]))
    note = (
        f"{setting.model}, {epochs} epochs, batch {training}, {training} training and {test} test images of "
        f"{photos.WIDTH}x{photos.HEIGHT} (1,000 and 20,000, scaled down); ours in {precision} with 1 "
        f"evaluation, the reference in fp32 with {counted(min(evaluations, epochs), 'evaluation')}"
    )
    return paired(taken, note)


def reference_run(
    data: Path, classes: int, setting: Setting, epochs: int, evaluations: int, batch: int
) -> None:
    """Train the reference on the same files with its own loop."""
    torch.set_num_threads(setting.threads)
    model = Reference(replace(ours.model_spec(setting), classes=classes), ours.DROP_PATH)
    side = setting.backbone.image_size
    reference_loop.train(model, data, side, epochs, evaluations, batch, setting.device)


_RUN = "100 epochs and one evaluation from JPEG files"
_TEN = "against fp32 with ten evaluations, as the released loop makes"
_SAME = "both in fp32, both with one evaluation"
case("run", f"{_RUN} in precision auto, {_TEN}", target=0.30, goal=0.25)(
    partial(run, precision="auto", evaluations=10)
)
case("run_fp32", f"{_RUN} in fp32, {_TEN}")(partial(run, precision="fp32", evaluations=10))
case("run_fp32_one_evaluation", f"{_RUN}, {_SAME}")(partial(run, precision="fp32", evaluations=1))
case("run_12_blocks", f"{_RUN} with all 12 blocks, {_SAME}")(
    partial(run, precision="fp32", evaluations=1, depth=12)
)
