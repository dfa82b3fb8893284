"""Loading of one trained adapter."""

from __future__ import annotations

import warnings
from pathlib import Path

from petl_bench.use.files import Source, Trained, read
from petl_bench.use.model import Model
from petl_bench.use.shared import SharedBackbone


def load(
    source: Source,
    backbone_weights: str | Path | None = None,
    device: str = "auto",
    precision: str | None = None,
    resize: str | None = None,
    store: str | Path = "results",
) -> Model:
    """Load a trained adapter with its backbone.

    Args:
        source: path of an adapter file, directory of a run, or run_id (or a unique beginning of one).
        backbone_weights: file of backbone weights, for adapters that were trained on weights from a file.
        device: torch's name of the device; auto: a GPU if there is one, else the CPU.
        precision: fp32, bf16, int8, or auto: bf16 where the device has it; None: that of the training.
        resize: `stretch` or `crop`, only for files that do not state how images were resized.
        store: store of a run that is given by its run_id.

    Returns:
        The model.

    Raises:
        UserError: there is no such file, it is damaged, or it was trained on other weights.
    """
    trained = read(source, backbone_weights, resize, store)
    for remark in trained.remarks:
        warnings.warn(remark, stacklevel=2)
    return model_of(trained, device, precision)


def model_of(trained: Trained, device: str = "auto", precision: str | None = None) -> Model:
    """Return the model of an adapter file that has been read; see `load`."""
    chosen = trained.facts.precision if precision is None else precision
    return SharedBackbone(trained.backbone, device=device, precision=chosen).model(trained)
