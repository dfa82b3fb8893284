"""Adapter files of runs: their metadata, and statistics in as few bytes as predictions allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from petl_bench import data, packing
from petl_bench.config import group_config, options
from petl_bench.model import Adapted, restore
from petl_bench.packing import AdapterFile
from petl_bench.run.plugged import needed, stated
from petl_bench.train import Pixels, predict
from petl_bench.types import TRAINVAL, BackboneSpec, RunSpec, Runtime


def pack(adapted: Adapted, spec: RunSpec, backbone: str, runtime: Runtime) -> AdapterFile:
    """Return the adapter file of a trained model.

    Args:
        adapted: the trained model.
        spec: the run.
        backbone: SHA-256 of the weights of the backbone.
        runtime: how the run is executed.
    """
    metadata = metadata_of(spec, backbone, adapted.network, runtime)
    file = adapted.file(metadata, spec.packing == "coded", spec.container == "short")
    return with_statistics(file, spec, runtime)


def metadata_of(spec: RunSpec, backbone: str, network: nn.Module, runtime: Runtime) -> dict[str, str]:
    """Return the metadata of the adapter file of a run.

    Args:
        spec: the run.
        backbone: SHA-256 of the weights of the backbone.
        network: the backbone, adapted or not.
        runtime: how the run is executed.
    """
    names = data.class_names(spec.task, runtime.cache)
    plugged = stated(needed(spec, network))
    return packing.describe(spec, backbone, _as_configured(spec.backbone), names, plugged)


def with_statistics(file: AdapterFile, spec: RunSpec, runtime: Runtime) -> AdapterFile:
    """Return an adapter file with statistics of the bytes that its run asks for.

    With `statistics=short`, means and stds take the fewest bytes with which the reloaded model predicts the
    same class for every training image as with exact ones. With `shortest` they are stored in bits, with as
    few bits of mantissa as a bisection finds, unless `short` takes fewer bytes.
    """
    matrices = [t for t in (*file.adapter, *file.head) if t.codes is not None]
    if spec.statistics == "exact" or not matrices:
        return file
    size, device = spec.backbone.image_size, torch.device(runtime.device)
    images = data.load(spec.task, TRAINVAL, size, runtime.cache)
    pixels = Pixels(spec.train.normalization, size, device)

    def classes(file: AdapterFile) -> NDArray[np.int64]:
        network = restore(spec.model, file, "short statistics", spec.precision, device)
        return predict(network, images, pixels)

    expected = classes(file)

    def agrees(shorter: AdapterFile) -> bool:
        return np.array_equal(classes(shorter), expected)

    sizes = (size for size in sorted(packing.STATISTIC_SIZES) if size < file.statistic_size)
    files = [file.with_statistic_size(size) for size in sizes]
    found = _with_fewest_bits(file, agrees) if spec.statistics == "shortest" else None
    if found is not None:
        files = sorted([found, *files], key=_size)
    return next((shorter for shorter in files if shorter is found or agrees(shorter)), file)


def _with_fewest_bits(file: AdapterFile, agrees: Callable[[AdapterFile], bool]) -> AdapterFile | None:
    """Return the file with statistics in bits, with the fewest bits of mantissa that a bisection finds.

    Args:
        file: file with exact statistics.
        agrees: whether a file predicts as before.

    Returns:
        The file; None if no number of bits can store the statistics so that the file agrees.
    """
    found, low, high = None, 0, packing.MOST_MANTISSA_BITS
    while low <= high:
        middle = (low + high) // 2
        try:
            candidate = file.with_mantissa(middle)
            _size(candidate)
        except ValueError:  # they differ too much for so many bits
            high = middle - 1
            continue
        if agrees(candidate):
            found, high = candidate, middle - 1
        else:
            low = middle + 1
    return found


def _size(file: AdapterFile) -> int:
    """Return the bytes of a file whose codes are not entropy-coded."""
    return len(packing.dump(replace(file, code=False)))


def _as_configured(backbone: BackboneSpec) -> bool:
    """Return whether the label of a backbone is that of a file of conf/backbone which describes it fully."""
    if backbone.label not in options("backbone"):
        return False
    known = BackboneSpec(**group_config("backbone", backbone.label))
    # Other weights are told by their checksum, and their files are named to `eval`; random ones have none.
    ours, theirs = ((b.name, b.image_size, b.options, b.weights == "random") for b in (backbone, known))
    return ours == theirs
