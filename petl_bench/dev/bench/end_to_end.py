"""Benchmark of a complete run on both sides, from image files to an accuracy."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from petl_bench.dev.bench import ours, photos, reference_loop
from petl_bench.dev.bench.case import CLASSES, Setting, case
from petl_bench.dev.bench.measure import Timing, paired, seconds_of
from petl_bench.dev.bench.reference import Reference

TEST_PER_TRAINING_IMAGE = 20
"""Test images per training image: VTAB-1K's tasks have 1,000 training and on average 20,300 test images."""


@case(
    "run",
    "100 epochs and one evaluation from JPEG files, compared with 100 epochs and ten evaluations",
    target=0.30,
    goal=0.25,
)
def run(setting: Setting) -> Timing:
    """Time complete runs without a warm-up, because decoding and evaluation are part of a run."""
    epochs = 2 if setting.quick else 100
    training = setting.batch if setting.on_gpu else 4
    test = training * TEST_PER_TRAINING_IMAGE
    taken = []
    with tempfile.TemporaryDirectory(prefix="petl-bench-") as folder:
        data = Path(folder) / "data"
        photos.write_task(data, training, test, CLASSES)
        for number in range(setting.rounds(1)):
            scratch = Path(folder) / str(number)
            mine = partial(ours.run, data, scratch, setting, epochs, training)
            theirs = partial(reference_run, data, setting, epochs, training)
            order = (mine, theirs) if number % 2 == 0 else (theirs, mine)
            found = {work: seconds_of(work, setting.device) for work in order}
            taken.append((found[mine], found[theirs]))
    note = (
        f"{setting.model}, {epochs} epochs, batch {training}, {training} training and {test} test images of "
        f"{photos.WIDTH}x{photos.HEIGHT} (1,000 and 20,000, scaled down), "
        f"ours in {ours.run_precision(setting)}"
    )
    return paired(taken, note)


def reference_run(data: Path, setting: Setting, epochs: int, batch: int) -> None:
    """Train the reference on the same files with its own loop."""
    torch.set_num_threads(setting.threads)
    model = Reference(ours.model_spec(setting), ours.DROP_PATH)
    reference_loop.train(model, data, setting.backbone.image_size, epochs, batch, setting.device)
