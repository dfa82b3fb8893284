"""Times of using trained adapters: until a model of another one is ready, and predictions of image files."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from petl_bench import packing
from petl_bench.atomic import write_atomic
from petl_bench.config import plan
from petl_bench.dev.bench.case import HIDDEN, Setting, case
from petl_bench.dev.bench.measure import Timing, alone, compare
from petl_bench.dev.bench.photos import photo
from petl_bench.model import assemble
from petl_bench.run.identity import backbone_sha256
from petl_bench.train.evaluation import evaluation_batch
from petl_bench.types import FLOAT_BITS, BackboneSpec, RunSpec
from petl_bench.use import SharedBackbone

FILES = 300
POCKET = ["sweep=none", "task=digits", "adapter=lora", f"hidden={HIDDEN}", "scale=1", "bits=1"]


def _run(backbone: BackboneSpec | None) -> RunSpec:
    """Return a run of LoRA at 1 bit, on the bundled backbone if none is given."""
    run = plan(POCKET).runs[0]
    return run if backbone is None else replace(run, backbone=backbone)


@contextmanager
def _files(run: RunSpec, count: int, code: bool) -> Iterator[list[Path]]:
    """Provide adapter files of random codes in a temporary folder.

    Args:
        run: run whose files they could be.
        count: number of files.
        code: whether codes are entropy-coded: those of all hidden units are alike then, as training leaves
            some of them.
    """
    adapted = assemble(run.model)
    metadata = packing.describe(run, backbone_sha256(run.backbone), by_label=bool(run.backbone.label))
    with tempfile.TemporaryDirectory(prefix="petl-bench-") as name:
        paths = []
        for number in range(count):
            random = np.random.default_rng(number)
            adapter, head = (
                [_stored(entry, random, code) for entry in part.entries]
                for part in (adapted.adapter, adapted.head)
            )
            path = Path(name) / f"{number}.safetensors"
            write_atomic(path, packing.dump(packing.AdapterFile(metadata, adapter, head, code)))
            paths.append(path)
        yield paths


def _stored(entry: packing.Entry, random: np.random.Generator, alike: bool) -> packing.StoredTensor:
    if entry.bits == FLOAT_BITS:
        return packing.StoredTensor(entry, values=random.standard_normal(entry.shape, np.float32))
    codes = random.integers(0, 2**entry.bits, entry.shape, np.uint8)
    if alike:
        units = entry.shape.index(min(entry.shape))
        same = np.repeat(codes.take([0], units), entry.shape[units], units)
        codes = np.where(random.random(entry.shape) < 0.8, same, codes).astype(np.uint8)
    return packing.StoredTensor(entry, codes=codes, mean=0.0, std=0.02)


def _timed(setting: Setting, run: RunSpec, code: bool, count: int, first: bool) -> Timing:
    """Time `SharedBackbone.use` for each of some files: CPU time, or seconds on a GPU.

    Args:
        first: time the first use of each file, else the second one, when it has been decoded.
    """
    backbone = SharedBackbone(run.backbone, device=setting.device)
    clock = time.perf_counter if setting.on_gpu else time.process_time
    taken: list[float] = []
    with _files(run, count, code) as paths:
        size = round(statistics.mean(path.stat().st_size for path in paths))
        for _ in range(1 if first else 2):
            taken.clear()
            for path in paths:
                begin = clock()
                backbone.use(path)
                if setting.on_gpu:
                    torch.cuda.synchronize(setting.device)
                taken.append(clock() - begin)
    return alone(taken, f"{run.backbone.display_name}, {count} files of {size:,} bytes")


def _vit(setting: Setting) -> RunSpec:
    return _run(replace(setting, depth=12).backbone)


@case("first_use_coded", "first use of a coded LoRA file: read, decode, attach, merge, CPU time")
def first_use_coded(setting: Setting) -> Timing:
    """Time the first use of coded files."""
    return _timed(setting, _vit(setting), True, setting.rounds(3), first=True)


@case("first_use_raw", "first use of a raw LoRA file: read, attach, merge, CPU time")
def first_use_raw(setting: Setting) -> Timing:
    """Time the first use of raw files."""
    return _timed(setting, _vit(setting), False, setting.rounds(20), first=True)


@case("switch", "switch to another decoded LoRA file on ViT-B/16, CPU time", target=0.1)
def switch(setting: Setting) -> Timing:
    """Time switches among many decoded files."""
    return _timed(setting, _vit(setting), False, setting.rounds(FILES), first=False)


@case("switch_pocket", "switch to another decoded LoRA file on the bundled backbone, CPU time", target=0.02)
def switch_pocket(setting: Setting) -> Timing:
    """Time switches among many decoded files."""
    return _timed(setting, _run(None), False, setting.rounds(FILES), first=False)


@case("predict", "predictions of JPEG files, against the bare model on ready pixels", target=1.25)
def predict(setting: Setting) -> Timing:
    """Compare `Model.predict` on image files with passes of its network over images in memory."""
    run = _vit(setting)
    backbone = SharedBackbone(run.backbone, device=setting.device)
    size, device = run.backbone.image_size, backbone.device
    batch = setting.batch if setting.quick else evaluation_batch(size, device)
    count = 2 * batch
    pixels = torch.rand(batch, 3, size, size, device=device)
    with _files(run, 1, False) as files, tempfile.TemporaryDirectory(prefix="petl-bench-") as folder:
        images = [Path(folder) / f"{number}.jpg" for number in range(count)]
        for number, image in enumerate(images):
            photo(number).save(image, quality=90)
        model = backbone.use(files[0])

        @torch.inference_mode()
        def bare() -> None:
            for _ in range(2):
                model.network(pixels)

        note = f"{run.backbone.display_name}, {count} photographs of 500 x 375 pixels in batches of {batch}"
        return compare(
            lambda: model.predict(images), bare, setting.device, setting.rounds(5), note, steps=count
        )
