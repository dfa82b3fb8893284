"""Rows with made-up results, for tests of what becomes of rows."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from petl_bench.types import ResultRow, RunSpec, changed_text, run_id

WEIGHTS = "0" * 64
"""Stands for the checksum of the backbone weights where only its being the same matters."""


def make_row(spec: RunSpec, acc: float, adapter: bytes = b"adapter", **changes: object) -> ResultRow:
    """A row with made-up results, as `Store.put` takes it; its test set has as many images as `acc` needs."""
    row = ResultRow(
        suite=spec.task.suite,
        task=spec.task.name,
        group=spec.task.group,
        backbone=spec.backbone.display_name,
        adapter=spec.adapter.name,
        hidden=spec.hidden,
        scale=1.0 if spec.scale is None else spec.scale,  # protocol sealed has none beforehand
        settings=changed_text(spec.adapter),
        quantizer=spec.quantizer,
        bits=spec.bits,
        head=spec.head,
        float_bits=spec.float_bits,
        protocol=spec.protocol.name,
        rungs=spec.protocol.rungs_text,
        precision=spec.precision,
        start=spec.start,
        matrix_lr=spec.matrix_lr,
        rate_weight=spec.rate_weight,
        packing=spec.packing,
        container=spec.container,
        statistics_of=spec.statistics_of,
        statistics=spec.statistics,
        compress=spec.compress,
        kept=spec.kept,
        strength=spec.strength,
        image_size=spec.backbone.image_size,
        normalization=spec.train.normalization,
        seed=spec.seed,
        epochs=spec.train.epochs,
        lr=spec.train.lr,
        searched=spec.searched,
        shots=spec.task.shots,
        split_seed=spec.task.split_seed,
        data_override=spec.task.override,
        data_fingerprint=spec.task.fingerprint,
        run_id=run_id(spec, WEIGHTS),
        status="done",
        acc=acc,
        acc_val=None,
        acc_best_peek=None,
        n_train=1000,
        n_test=spec.task.splits["test"],
        bytes_adapter=len(adapter),
        bytes_head=0,
        bytes_overhead=0,
        bytes_file=len(adapter),
        bits_per_weight=float(spec.bits) if spec.hidden else None,
        params_trainable=1,
        seconds_search=0.0,
        seconds_train=1.0,
        seconds_eval=0.5,
        images_per_second=1000.0,
        peak_memory_bytes=1,
        device="made-up",
        backbone_sha256=WEIGHTS,
        version="0",
        git_revision="made-up",
        git_dirty=False,
        torch_version="0",
        pillow_version="0",
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:00:01+00:00",
    )
    made = dataclasses.replace(row, **changes)
    size = changes.get("bytes_file", made.bytes_adapter + made.bytes_head + made.bytes_overhead)
    values = (value for value in (acc, made.acc_best_peek or 0.0) if math.isfinite(value))
    rights = [Fraction(value).limit_denominator(10**5) for value in values]
    images = math.lcm(*(right.denominator for right in rights))
    whole = all((made.n_test * right).denominator == 1 for right in rights)
    return dataclasses.replace(made, bytes_file=size, n_test=made.n_test if whole else images)
