"""CorDA (Yang et al. 2024, arXiv 2406.05223): PiSSA with components oriented by the covariance of the inputs.

On every linear of a block, with C the covariance of its inputs and W C = U S V^T:

    up_0 = U_r sqrt(S_r),    down_0 = sqrt(S_r) V_r^T C^-1
    y = W x + bias + s * (up down - up_0 down_0) x

W (outputs, inputs) and bias (outputs,) are frozen; up (outputs, r) and down (r, inputs) are trained and
initialized with up_0 and down_0; C is (inputs, inputs), r is hidden, and s is the fixed scale. mode=ipa takes
the r leading triplets, which are to learn the task. mode=kpa takes the r last triplets, so that the
components of W that matter most stay frozen. C is the mean over images of X^T X, where X (tokens, inputs) is
divided by its largest magnitude, plus 0.01 times the mean of its diagonal on the diagonal. Finally, up_0 and
down_0 are scaled to equal norms without changing their product.

Source: repository iboing/CorDA. It divides X by the magnitude of its largest entry, which is less than the
largest magnitude where negative entries are larger, and may be close to zero; otherwise its C is the same. It
doubles the share of 0.01 until the product of C and its inverse is close to the identity, which in float64 is
always the case. Translations by this project: the images are the task's own training images, also in kpa,
where the source takes images like those of the pretraining; the sites in a vision transformer; `allocation`;
and quantization, for which up_0 and down_0 are quantized as the trained pair is. In the attention of Swin
each window counts as an image.

up_0 and down_0 depend on images, so they are stored: a file has twice the bytes of its trained pairs. They
are computed before training. Until then both pairs hold the same random numbers, which also is the frozen
network.
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
"""Share of the mean of the diagonal of C that is added to the diagonal."""


@dataclass(frozen=True)
class CorDAConfig:
    mode: str = "ipa"
    """Components that are trained: ipa (the leading ones) or kpa (the last ones)."""
    allocation: str = "uniform"
    """Distribution of a fixed sum of ranks over depth: uniform, rising, falling, middle or ends."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {self.mode!r}")


class Covariance:
    """The covariance of the inputs of one linear, accumulated as a forward pre-hook.

    Attributes:
        total: sum over images of X^T X (inputs, inputs).
        images: number of images.
    """

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.images = 0

    def __call__(self, linear: nn.Module, inputs: tuple[Tensor]) -> None:
        """Add a batch of inputs (images, ..., inputs)."""
        x = inputs[0].detach().float().flatten(1, -2)
        rows = (x / x.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)).flatten(0, 1)
        self.total = self.total + rows.t() @ rows
        self.images += len(x)

    def damped(self) -> Tensor:
        """Return C (inputs, inputs), float64, on the CPU."""
        assert isinstance(self.total, Tensor)
        mean = self.total.double().cpu() / self.images
        share = DAMPING * mean.diagonal().mean().clamp_min(1e-12)
        return mean + share * torch.eye(len(mean), dtype=mean.dtype)


def oriented(weight: Tensor, covariance: Tensor, rank: int, mode: str) -> tuple[Tensor, Tensor]:
    """Return the initial factors down_0 (rank, inputs) and up_0 (outputs, rank), float32.

    Args:
        weight: W (outputs, inputs).
        covariance: C (inputs, inputs).
        rank: number of components.
        mode: a name of MODES.
    """
    seen = weight.detach().double().cpu() @ covariance
    if mode == "ipa":
        found = components(seen)[:rank]
    else:
        # `components` loses accuracy in the last triplets.
        left, values, right = torch.linalg.svd(seen, full_matrices=False)
        found = signed(Components(left, values, right.t()))[-rank:]
    back = torch.cholesky_solve(found.right, torch.linalg.cholesky(covariance))
    down, up = halves(Components(found.left, found.values, back))
    even = (up.norm() / down.norm()).sqrt()
    return down * even, up / even


def _alike(name: str, seed: int, own: str, shape: tuple[int, int]) -> initialization.Values:
    return initialization.linear(seed, f"adapter.{name}", shape)


@adapter(
    "corda",
    description="PiSSA oriented by the covariance of the training images (CorDA, arXiv 2406.05223).",
    config=CorDAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: CorDAConfig) -> Attached:
    """Attach one pair per linear: (inputs + outputs) * hidden weights and 0 floats.

    The matrices are BLOCK.ROLE.down (r, inputs) and BLOCK.ROLE.up (outputs, r). As many weights are stored
    without being trained, under the names of these matrices with `.start` appended.

    Raises:
        UserError: a rank is greater than the number of components of a linear.
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
    """Set the trained and the stored pair of every linear to the initial factors of the training images."""
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
