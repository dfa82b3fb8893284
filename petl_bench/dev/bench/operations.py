"""Number of operations of a training step: on a GPU each is a kernel launch, which bounds small steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from petl_bench.dev.bench import ours
from petl_bench.dev.bench.case import CLASSES, TINY, Setting
from petl_bench.types import BackboneSpec, ModelSpec

UNCOPIED = {"aten::_unsafe_view", "aten::_reshape_alias"}
"""Operations that copy nothing although torch does not call them views."""


class Operations(TorchDispatchMode):
    """Context that counts operations of torch, without views.

    A GPU launches at most as many kernels as this for most operations, and several for a few such as a fused
    optimizer's step over many tensors.

    Attributes:
        count: number of operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and execute it."""
        self.count += not (operation.is_view or operation._schema.name in UNCOPIED)
        return operation(*args, **(kwargs or {}))


def step_operations(spec: ModelSpec, precision: str, blocks: int) -> int:
    """Return the number of operations of a training step of a vision transformer, with its optimizer.

    It does not depend on the sizes of the tensors, so that a tiny model is trained on the CPU.

    Args:
        spec: the model; its backbone is replaced.
        precision: precision of the backbone.
        blocks: number of blocks of the backbone.
    """
    setting = Setting(quick=True)
    backbone = BackboneSpec("vit_tiny_patch16_224", "random", 32, TINY | {"depth": blocks})
    counts = []
    for steps in (1, 2):
        torch.manual_seed(0)
        work = ours.training(replace(spec, backbone=backbone, classes=CLASSES), precision, setting, steps)
        with Operations() as counted:
            work()
        counts.append(counted.count)
    return counts[1] - counts[0]
