"""CorDA (Yang et al. 2024, arXiv 2406.05223; repository iboing/CorDA): PiSSA seen through the inputs.

On every linear of a block, with C the covariance of its inputs and W C = U S V^T:

    start_up = U_r sqrt(S_r), start_down = sqrt(S_r) V_r^T C^-1
    y = W x + bias + s * (up down - start_up start_down) x,  up and down begin at their starts

mode=ipa takes the leading r (hidden) triplets, which are to learn the task; mode=kpa the last r, so that what
matters most of W stays frozen. C is the mean over images of X^T X, X (tokens, inputs) divided by its greatest
magnitude, plus 0.01 of its mean diagonal. The source doubles that share until the product of C and its
inverse is near 1; in float64 it always is. Then both starts get equal norms, their product unchanged.

Translations (ours): the images are the task's own training images, in kpa too, where the source takes ones
like the pretraining's; the sites; the quantization, by which the stored start is rounded as the trained pair
is. In Swin's attention each window counts as an image.

The start depends on images, so it is stored: a file has twice the bytes of its trained pairs. It is computed
before the training; until then both pairs are the same random numbers, which is the frozen network too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Calibration, Shape, adapter
from petl_bench.adapters.decomposed import Components, Moved, components, fitting, signed
from petl_bench.adapters.delta import DeltaLinear, roles
from petl_bench.adapters.lowrank import allocated, pair
from petl_bench.adapters.pissa import halves
from petl_bench.backbones.sites import Sites, widths

MODES = ("ipa", "kpa")
DAMPING = 0.01
"""Share of C's mean diagonal that is added to the diagonal."""


@dataclass(frozen=True)
class CorDAConfig:
    mode: str = "ipa"
    """ipa: the leading components are trained; kpa: the last."""
    allocation: str = "uniform"
    """Ranks by depth, of one sum; see petl_bench.adapters.lowrank.ALLOCATIONS."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {self.mode!r}")


class Covariance:
    """Of the inputs of one linear: a forward pre-hook.

    Attributes:
        total: (inputs, inputs), the sum over images of X^T X.
        images: how many.
    """

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.images = 0

    def __call__(self, linear: nn.Module, inputs: tuple[Tensor]) -> None:
        """Take a batch (images, ..., inputs)."""
        x = inputs[0].detach().float().flatten(1, -2)
        rows = (x / x.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)).flatten(0, 1)
        self.total = self.total + rows.t() @ rows
        self.images += len(x)

    def damped(self) -> Tensor:
        """C, float64, on the CPU."""
        assert isinstance(self.total, Tensor)
        mean = self.total.double().cpu() / self.images
        share = DAMPING * mean.diagonal().mean().clamp_min(1e-12)
        return mean + share * torch.eye(len(mean), dtype=mean.dtype)


def oriented(weight: Tensor, covariance: Tensor, rank: int, mode: str) -> tuple[Tensor, Tensor]:
    """The starts, down (rank, inputs) and up (outputs, rank), float32, of W (outputs, inputs) and C."""
    seen = weight.detach().double().cpu() @ covariance
    if mode == "ipa":
        found = components(seen)[:rank]
    else:
        # The last triplets want their digits.
        left, values, right = torch.linalg.svd(seen, full_matrices=False)
        found = signed(Components(left, values, right.t()))[-rank:]
    back = torch.cholesky_solve(found.right, torch.linalg.cholesky(covariance))
    down, up = halves(Components(found.left, found.values, back))
    even = (up.norm() / down.norm()).sqrt()
    return down * even, up / even


def _alike(name: str, seed: int, own: str, shape: tuple[int, int]) -> initialization.Values:
    return initialization.linear(seed, f"adapter.{name}", shape)


@adapter("corda", config=CorDAConfig, group="low-rank", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: CorDAConfig) -> Attached:
    """BLOCK.ROLE.down (r, inputs) and BLOCK.ROLE.up (outputs, r) of each linear, then all under NAME.start.

    Raises:
        UserError: a rank is more than a linear has.
    """
    attached = Attached(float32=True)
    frozen: dict[str, nn.Module] = {}
    ranks = allocated(config.allocation, len(sites.blocks), shape.hidden)
    for number, (rank, block) in enumerate(zip(ranks, sites.blocks, strict=True)):
        for role in roles(block):
            slot = block.linear(role)
            name = f"{number}.{role}"
            fitting(name, rank, min(widths(slot)))
            frozen[name] = slot.get()
            matrices = pair(attached, name, *widths(slot), shape, rank)
            for part, matrix in zip(("down", "up"), matrices, strict=True):
                start = nn.Linear(matrix.in_features, matrix.out_features, bias=False).requires_grad_(False)
                attached.fixed[f"{name}.{part}.start"] = start
                alike = partial(_alike, f"{name}.{part}")
                attached.initializers.update({f"{name}.{part}": alike, f"{name}.{part}.start": alike})
            starts = [attached.fixed[f"{name}.{part}.start"] for part in ("down", "up")]
            slot.set(DeltaLinear(slot.get(), Moved(*matrices, starts[0], starts[1], shape.scale)))
    calibrate = partial(_calibrate, attached, frozen, config.mode)
    return replace(attached, calibrate=calibrate)


@torch.no_grad()
def _calibrate(attached: Attached, frozen: dict[str, nn.Module], mode: str, calibration: Calibration) -> None:
    """Both pairs of every linear begin at the starts that the training images give."""
    covariances = {name: Covariance() for name in frozen}
    hooks = [frozen[name].register_forward_pre_hook(seen) for name, seen in covariances.items()]
    try:
        calibration.observe()
    finally:
        for hook in hooks:
            hook.remove()
    for name, linear in frozen.items():
        assert isinstance(linear.weight, Tensor)
        rank = attached.matrices[f"{name}.down"].out_features
        starts = oriented(linear.weight, covariances.pop(name).damped(), rank, mode)
        for part, values in zip(("down", "up"), starts, strict=True):
            attached.matrices[f"{name}.{part}"].weight.copy_(values)
            attached.fixed[f"{name}.{part}.start"].weight.copy_(values)
