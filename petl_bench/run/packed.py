"""Adapter files of runs: their metadata, and statistics in as few bytes as predictions allow."""

from __future__ import annotations

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
    same class for every training image as with exact ones.
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
    shorter = (size for size in sorted(packing.STATISTIC_SIZES) if size < file.statistic_size)
    files = map(file.with_statistic_size, shorter)
    return next((short for short in files if np.array_equal(classes(short), expected)), file)


def _as_configured(backbone: BackboneSpec) -> bool:
    """Return whether the label of a backbone is that of a file of conf/backbone which describes it fully."""
    if backbone.label not in options("backbone"):
        return False
    known = BackboneSpec(**group_config("backbone", backbone.label))
    # Other weights are told by their checksum, and their files are named to `eval`; random ones have none.
    ours, theirs = ((b.name, b.image_size, b.options, b.weights == "random") for b in (backbone, known))
    return ours == theirs
