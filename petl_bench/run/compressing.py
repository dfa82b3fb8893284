"""Compression of a finished run at 32 bits: strengths are chosen on val, by a model trained without val."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from petl_bench import data, packing
from petl_bench.config.specs import uncompressed
from petl_bench.device import prepare_process
from petl_bench.errors import DivergedError, UserError
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.model import Adapted, assemble, restore
from petl_bench.model.compression import bitdelta, compeft, loraquant, ptq
from petl_bench.packing import AdapterFile, StoredTensor
from petl_bench.run.distillation import distilled
from petl_bench.run.metadata import logger
from petl_bench.run.packed import metadata_of, with_statistics
from petl_bench.run.search import Trial
from petl_bench.run.training import train
from petl_bench.store import ADAPTER, Store
from petl_bench.train import Pixels, evaluate
from petl_bench.types import COMPRESSIONS, Job, ModelSpec, ResultRow, RunSpec, Runtime, run_id


@dataclass(frozen=True)
class Compressed:
    """A compressed run before its evaluation on test.

    Attributes:
        spec: the run with the scale and the learning rate of its source.
        file: its adapter file.
        adapted: the model at its start, not prepared.
        source: row of the run that was compressed.
        trials: accuracies on val of all strengths that were tried.
        acc_val: that of the chosen one; None where nothing was chosen.
        chosen: what was chosen, as `kept=0.1 strength=3`.
        seconds_search: seconds of choosing, with the training without val.
        seconds: seconds of compressing the run itself.
    """

    spec: RunSpec
    file: AdapterFile
    adapted: Adapted
    source: ResultRow
    trials: list[Trial] = field(default_factory=list)
    acc_val: float | None = None
    chosen: str = ""
    seconds_search: float = 0.0
    seconds: float = 0.0


class Source:
    """A trained adapter at 32 bits.

    Args:
        model: description of the model at 32 bits.
        file: its adapter file.
        where: path of the file, for messages.

    Attributes:
        start: the model at its start, not prepared.
        trained: the trained model, not prepared.
    """

    def __init__(self, model: ModelSpec, file: AdapterFile, where: str) -> None:
        self.file, self.where = file, where
        seed = int(file.metadata.get("seed", "0"))
        self.start, self.trained = assemble(model, seed), assemble(model, seed)
        self.trained.adapter.restore(file.adapter, where)
        self.trained.head.restore(file.head, where)

    def compressed(
        self,
        model: ModelSpec,
        kept: float,
        strength: float,
        statistics_of: str = "matrix",
        sizes: Sequence[float] = (),
    ) -> list[StoredTensor]:
        """Return the tensors of the compressed adapter.

        Args:
            model: description of the compressed model.
            kept: share that is kept.
            strength: size of the kept deviations in standard deviations of all.
            statistics_of: what is standardized together.
            sizes: coefficients of bitdelta; empty: those of least squared error.
        """
        start, trained = self.start.adapter, self.trained.adapter
        match model.compress:
            case "compeft":
                return compeft.compress(compeft.deviations(start, trained), kept, strength)
            case "loraquant":
                return loraquant.compress(trained, model.bits, kept)
            case "bitdelta":
                moved = bitdelta.differences(start, trained)
                return bitdelta.compress(trained, moved, sizes or bitdelta.coefficients(moved))
        seed = int(self.file.metadata.get("seed", "0"))
        target = assemble(model, seed, statistics_of=statistics_of)
        return ptq.compress(trained, target.adapter, target.network)


def compress(job: Job, runtime: Runtime, store: Store, checkpoints: Path | None = None) -> Compressed:
    """Compress the run at 32 bits that a job states; test images are not used.

    Args:
        job: the compressed run, its task resolved.
        runtime: how the run is executed.
        store: store that holds the run at 32 bits.
        checkpoints: folder of checkpoints of the training without val; None: none.

    Raises:
        UserError: the run at 32 bits is not done, or the adapter cannot be compressed in this way.
    """
    prepare_process(runtime.device, runtime.threads)
    base, source = source_of(job.spec, job.backbone_sha256, store)
    rate = job.spec.train.lr if source.lr is None else source.lr
    spec, base = (
        replace(held, scale=source.scale, train=replace(held.train, lr=rate)) for held in (job.spec, base)
    )
    path = store.directory(source.run_id) / ADAPTER
    final = Source(base.model, packing.load(read_bytes(path, ADAPTER_LIMIT), str(path)), str(path))
    begin = time.perf_counter()
    choice = COMPRESSIONS[spec.compress]
    candidates = choice.candidates(spec.kept, spec.strength)
    trials: list[Trial] = []
    acc_val, (kept, strength) = None, candidates[0]
    if len(candidates) > 1:
        trial = final if spec.task.shots else _without_val(base, runtime, checkpoints)
        trials = _tried(trial, spec, candidates, runtime)
        best = max(trials, key=lambda held: held["acc_val"] or 0.0)  # the first of equal ones
        acc_val, (kept, strength) = best["acc_val"], candidates[trials.index(best)]
    searched = time.perf_counter()
    sizes: list[float] = []
    if spec.compress == "bitdelta":
        moved = bitdelta.differences(final.start.adapter, final.trained.adapter)
        sizes = distilled(*_pair(base, final), moved, spec, runtime)
    tensors = final.compressed(spec.model, kept, strength, spec.statistics_of, sizes)
    metadata = metadata_of(spec, job.backbone_sha256, final.start.network, runtime)
    file = with_statistics(_file_of(spec, metadata, tensors, final.file), spec, runtime)
    given = {"kept": (spec.kept, kept), "strength": (spec.strength, strength)}
    chosen = [f"{name}={value:g}" for name, (own, value) in given.items() if not own and name in choice.open]
    return Compressed(
        spec,
        file,
        final.start,
        source,
        trials,
        acc_val,
        " ".join(chosen) if trials else "",
        searched - begin if trials else 0.0,
        time.perf_counter() - searched,
    )


def source_of(spec: RunSpec, backbone_sha256: str, store: Store) -> tuple[RunSpec, ResultRow]:
    """Return the run at 32 bits that a run is made from, and its row.

    Raises:
        UserError: it is not done.
    """
    known = {run_id(source, backbone_sha256): source for source in uncompressed(spec)}
    for name, source in known.items():
        if store.state(name) == "done":
            return source, store.row(name)
    first = next(iter(known))
    raise UserError(f"run {first} at 32 bits, which is to be compressed, is not done in store {store.root}")


_last: dict[str, AdapterFile] = {}
"""The last model that was trained without val, by what it follows from: several compressions need it."""


def _without_val(base: RunSpec, runtime: Runtime, checkpoints: Path | None) -> Source:
    """Return the adapter of a run at 32 bits that is trained without val."""
    key = repr((base, runtime.device, runtime.threads))
    if key not in _last:
        trained = train(base, runtime, split="train", checkpoints=checkpoints)
        _last.clear()
        _last[key] = trained.adapted.file({"seed": str(base.seed)})
    return Source(base.model, _last[key], "the model trained without val")


def _tried(
    source: Source, spec: RunSpec, candidates: Sequence[tuple[float, float]], runtime: Runtime
) -> list[Trial]:
    """Return the accuracy on val of each pair of `kept` and `strength`."""
    size, device = spec.backbone.image_size, torch.device(runtime.device)
    images = data.load(spec.task, "val", size, runtime.cache)
    pixels = Pixels(spec.train.normalization, size, device)
    trials: list[Trial] = []
    for kept, strength in candidates:
        tensors = source.compressed(spec.model, kept, strength, spec.statistics_of)
        file = _file_of(spec, {"seed": str(spec.seed)}, tensors, source.file)
        network = restore(spec.model, file, source.where, spec.precision, device)
        try:
            accuracy = evaluate(network, images, pixels)
        except DivergedError:
            accuracy = 0.0
        trial: Trial = {"scale": spec.scale, "lr": spec.train.lr, "epochs": spec.train.epochs}
        trials.append(trial | {"acc_val": accuracy, "kept": kept, "strength": strength})
        logger.info("kept %g, strength %g: acc on val %.4f", kept, strength, accuracy)
    return trials


def filed(
    metadata: dict[str, str],
    tensors: list[StoredTensor],
    trained: AdapterFile,
    how: str,
    coded: bool,
    short: bool,
    shared: bool = False,
) -> AdapterFile:
    """Return the adapter file of compressed tensors with the head of the trained model.

    Args:
        metadata: its metadata.
        tensors: tensors of the adapter.
        trained: adapter file of the trained model.
        how: way of compressing.
        coded: whether codes are entropy-coded where that makes a section smaller.
        short: whether the container is the short one.
        shared: whether tensors may have the statistics of earlier ones.
    """
    file = AdapterFile(metadata, tensors, trained.head, coded, short=short, shared=shared)
    if how == "loraquant" and all(tensor.codes is None for tensor in trained.head):
        return file.with_statistic_size(loraquant.STATISTIC_SIZE)
    return file


def _file_of(
    spec: RunSpec, metadata: dict[str, str], tensors: list[StoredTensor], trained: AdapterFile
) -> AdapterFile:
    shared = spec.statistics_of != "matrix"
    coded = spec.packing == "coded" and spec.compress != "bitdelta"  # signs that nothing predicts
    return filed(metadata, tensors, trained, spec.compress, coded, spec.container == "short", shared)


def _pair(base: RunSpec, final: Source) -> tuple[Adapted, Adapted]:
    """Return models of their own at the start and trained, which a distillation moves to its device."""
    own = Source(base.model, final.file, final.where)
    return own.start, own.trained
