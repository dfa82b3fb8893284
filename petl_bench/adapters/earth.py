"""Mixture of frequency adapters between blocks, on the patches (VisionXLab/Earth-Adapter).

    p + s * sum over k of pi_k(p) E_k(p_k)      E_k(v) = up_k @ relu(down_k @ v + a_k) + c_k

p is a patch of a block's output, pi = softmax(router @ p + b) of three, p_1 = p, p_2 and p_3 the low and the
high frequencies of the grid. Low is what is left of the orthonormal 2-D Fourier transform, its zero in the
middle, within c rows and columns before and after it (the row and column of +c left out, as in the source);
its real part. c is half of cutoff * the smaller side, at least 1: the source may have 0, and no low
frequencies then. High is the rest. The transform is made in float32.

`frequency` blocks have this; the others p + s * E_1(p). s is trained, one a block, and starts at the scale,
.1 in the source. Its matrices all start as torch's linears, so that training does not begin at the frozen
network; up_start=zero lets it. No biases by default (inference): at 1 bit they would be as large as all
matrices.

The class token and registers pass by: they meet the adapters' work in the attention of later blocks. Where
the head reads the class token alone the last block has no adapter, whose gradient would be zero. The source
is for segmentation, whose head reads patches; that a classifier has a use for it is a translation. Backbones
whose tokens lie in rows and columns are refused: late stages have grids too small for two bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites, TokenGrid
from petl_bench.errors import UserError

BANDS = ("all", "low", "high")


@dataclass(frozen=True)
class EarthConfig:
    frequency: int = 3
    """Blocks that mix three adapters; more than there are: all."""
    where: str = "first"
    """Which these are: the first or the last."""
    cutoff: float = 0.3
    """Share of the frequencies of the smaller side that are low."""
    bias: bool = False
    """Whether adapters and router have biases, in float32."""
    up_start: str = "linear"
    """Start of the up matrices: linear (torch's), or zero; below 32 bits zero is near zero."""


class Expert(nn.Module):
    """v -> up @ relu(down @ v + a) + c."""

    def __init__(self, down: nn.Linear, up: nn.Linear, bias: bool) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.down_bias = nn.Parameter(torch.zeros(down.out_features)) if bias else None
        self.up_bias = nn.Parameter(torch.zeros(up.out_features)) if bias else None

    def forward(self, v: Tensor) -> Tensor:
        """(batch, ..., dim), in and out."""
        hidden = functional.relu(functional.linear(v, self.down.weight, self.down_bias))
        return functional.linear(hidden, self.up.weight, self.up_bias)


class Earth(nn.Module):
    """x, z, d -> d + s * the adapters' work on the patches of x + d, 0 for other tokens.

    Args:
        experts: one, or those of BANDS.
        router: of three outputs; None where there is one expert.
        cutoff: rows and columns of the low band on either side of frequency 0.
    """

    def __init__(
        self,
        experts: list[Expert],
        router: nn.Linear | None,
        layout: TokenGrid,
        scale: float,
        cutoff: int,
        bias: bool,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.router = router
        self.router_bias = nn.Parameter(torch.zeros(len(BANDS))) if bias and router is not None else None
        self.scale = nn.Parameter(torch.full((1,), scale))
        self.layout = layout
        self.cutoff = cutoff

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """All (batch, tokens, dim)."""
        prefix, patches = self.layout.split(x + d)
        update = self.scale * self.mixed(patches)
        return d + self.layout.join(None if prefix is None else torch.zeros_like(prefix), update)

    def mixed(self, patches: Tensor) -> Tensor:
        """The adapters' work on patches (batch, rows, columns, dim), of the same shape."""
        if self.router is None:
            update: Tensor = self.experts[0](patches)
            return update
        low = low_frequencies(patches, self.cutoff)
        shares = functional.linear(patches, self.router.weight, self.router_bias).softmax(-1)
        of_all, of_low, of_high = shares.split(1, -1)
        everything, lower, higher = self.experts
        return of_all * everything(patches) + of_low * lower(low) + of_high * higher(patches - low)

    def biases(self) -> list[nn.Parameter]:
        """Of its experts, then of its router."""
        own = [bias for expert in self.experts for bias in (expert.down_bias, expert.up_bias)]
        return [bias for bias in (*own, self.router_bias) if isinstance(bias, nn.Parameter)]


def low_frequencies(patches: Tensor, cutoff: int) -> Tensor:
    """Of a grid (batch, rows, columns, dim): the part of frequencies -cutoff to cutoff - 1 both ways."""
    axes = (1, 2)
    spectrum = torch.fft.fftshift(torch.fft.fft2(patches.float(), dim=axes, norm="ortho"), dim=axes)
    middles = [size // 2 for size in patches.shape[1:3]]
    row, column = (slice(max(middle - cutoff, 0), middle + cutoff) for middle in middles)
    kept = torch.zeros_like(spectrum)
    kept[:, row, column] = spectrum[:, row, column]
    low = torch.fft.ifft2(torch.fft.ifftshift(kept, dim=axes), dim=axes, norm="ortho")
    return low.real.to(patches.dtype)


# tokenwise: where the last block leaves tokens out, it has no adapter.
@adapter("earth", config=EarthConfig, group="additive", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: EarthConfig) -> Attached:
    """A block: 2 * dim * hidden weights and the float s; where bands are mixed 6 * dim * hidden + 3 * dim.

    With biases hidden + dim floats more an expert, and 3 a router. The last block has nothing where the head
    reads the class token alone.
    """
    one_of("where", config.where, ("first", "last"))
    one_of("up_start", config.up_start, ("linear", "zero"))
    if config.frequency < 0:
        raise ValueError(f"frequency must be a number of blocks, not {config.frequency}")
    cutoff = _cutoff(sites.layout, config.cutoff)
    attached = Attached()
    blocks = sites.blocks[: len(sites.blocks) - sites.first_token]
    for number, block in enumerate(blocks):
        rank = number if config.where == "first" else len(blocks) - 1 - number
        mixes = rank < config.frequency
        experts = []
        for band in BANDS if mixes else BANDS[:1]:
            name = f"{number}.{band}"
            experts.append(Expert(*pair(attached, name, block.dim, block.dim, shape), config.bias))
            if config.up_start == "linear":
                attached.initializers[f"{name}.up"] = initialization.linear
        router = nn.Linear(block.dim, len(BANDS), bias=False) if mixes else None
        if router is not None:
            attached.matrices[f"{number}.router"] = router
        module = Earth(experts, router, sites.layout, shape.scale, cutoff, config.bias)
        if config.bias:
            attached.floats.setdefault("biases", []).extend(module.biases())
        attached.floats.setdefault("scales", []).append(module.scale)
        block.branch("mlp").join(module)
    return attached


def _cutoff(layout: TokenGrid, share: float) -> int:
    """Rows and columns of the low band on either side of frequency 0."""
    if layout.grid is None:
        raise UserError(
            "this adapter needs one grid of patches in all blocks, as a vision transformer has it: "
            "choose another adapter or backbone"
        )
    side = min(layout.grid)
    cutoff = max(1, int(side * share // 2))
    if share <= 0 or 2 * cutoff >= max(layout.grid):
        raise ValueError(f"cutoff={share} leaves nothing of one band on a grid of {layout.grid}")
    return cutoff
