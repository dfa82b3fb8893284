"""Earth-Adapter (repository VisionXLab/Earth-Adapter): adapters of all, low and high frequencies of patches.

    p' = p + s * sum over k of pi_k(p) * E_k(p_k)
    E_k(v) = up_k @ relu(down_k @ v + a_k) + c_k
    pi(p) = softmax(router @ p + b)

p (dim,) is a patch of the output of a block, p_1 = p, and p_2 and p_3 are the low and the high frequencies of
the grid of patches at the same place. down_k (hidden, dim), up_k (dim, hidden), router (3, dim), a_k
(hidden,), c_k (dim,) and b (3,); s is one trained factor per block, which starts at the scale. The low
frequencies are the real part of the orthonormal 2-D Fourier transform after all entries but those of the
frequencies -m to m - 1 in both directions have been set to zero. m is half of cutoff * the smaller side of
the grid, rounded down and at least 1. The high frequencies are the rest. The transform runs in float32.

The first or last `frequency` blocks have this mixture; the others compute p + s * E_1(p). The class token and
registers are not changed; they see the result in the attention of later blocks. If the head reads the class
token only, the last block has no adapter, because its gradient would be zero.

Differences from the source: it initializes s with 0.1, and m may be 0 there, which leaves no low frequencies.
Biases are off by default, because they would take as many bytes as all matrices at 1 bit (inferred). All
matrices are initialized as torch.nn.Linear, as in the source, so that training does not start at the frozen
backbone; up_start=zero makes it do so. The source is for segmentation, where the head reads patches; its use
for classification is a translation by this project. Backbones that keep tokens in rows and columns (Swin,
ConvNeXt, LowFormer) are refused, because the grids of their last stages are too small for two bands.
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
    """Number of blocks that mix adapters of three bands; the others have one adapter."""
    where: str = "first"
    """Blocks that mix bands: the first or the last."""
    cutoff: float = 0.3
    """Share of the frequencies of the smaller side of the grid that count as low; above 0, and below 1
    on square grids."""
    bias: bool = False
    """Add biases to adapters and router, which are stored in float32."""
    up_start: str = "linear"
    """Initializer of up: linear (that of torch.nn.Linear), or zero (near zero below 32 bits)."""


class Expert(nn.Module):
    """One bottleneck adapter, up @ relu(down @ v + a) + c.

    Args:
        down: weight (hidden, dim).
        up: weight (dim, hidden).
        bias: whether there are biases a (hidden,) and c (dim,).
    """

    def __init__(self, down: nn.Linear, up: nn.Linear, bias: bool) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.down_bias = nn.Parameter(torch.zeros(down.out_features)) if bias else None
        self.up_bias = nn.Parameter(torch.zeros(up.out_features)) if bias else None

    def forward(self, v: Tensor) -> Tensor:
        """Map v (batch, ..., dim) to the same shape."""
        hidden = functional.relu(functional.linear(v, self.down.weight, self.down_bias))
        return functional.linear(hidden, self.up.weight, self.up_bias)


class Earth(nn.Module):
    """The adapters of one block, which change the patches of its output x + d.

    Args:
        experts: one adapter, or one for each of BANDS.
        router: linear with weight (3, dim); None if there is one adapter.
        layout: places of the tokens in the image.
        scale: initial value of the trained factor s.
        cutoff: number of rows and columns of the low band on either side of frequency 0.
        bias: whether the router has a bias.
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
        """Return d plus the update of the patches of x + d; all are (batch, tokens, dim)."""
        prefix, patches = self.layout.split(x + d)
        update = self.scale * self.mixed(patches)
        return d + self.layout.join(None if prefix is None else torch.zeros_like(prefix), update)

    def mixed(self, patches: Tensor) -> Tensor:
        """Return the update of patches (batch, rows, columns, dim), without the factor s."""
        if self.router is None:
            update: Tensor = self.experts[0](patches)
            return update
        low = low_frequencies(patches, self.cutoff)
        shares = functional.linear(patches, self.router.weight, self.router_bias).softmax(-1)
        of_all, of_low, of_high = shares.split(1, -1)
        everything, lower, higher = self.experts
        return of_all * everything(patches) + of_low * lower(low) + of_high * higher(patches - low)

    def biases(self) -> list[nn.Parameter]:
        """Return the biases of the adapters, then that of the router."""
        own = [bias for expert in self.experts for bias in (expert.down_bias, expert.up_bias)]
        return [bias for bias in (*own, self.router_bias) if isinstance(bias, nn.Parameter)]


def low_frequencies(patches: Tensor, cutoff: int) -> Tensor:
    """Return the part of a grid with the frequencies -cutoff to cutoff - 1 in both directions.

    Args:
        patches: (batch, rows, columns, dim).
        cutoff: number of rows and columns of the spectrum that are kept on either side of frequency 0.

    Returns:
        Filtered patches, of the shape and dtype of `patches`.
    """
    axes = (1, 2)
    spectrum = torch.fft.fftshift(torch.fft.fft2(patches.float(), dim=axes, norm="ortho"), dim=axes)
    middles = [size // 2 for size in patches.shape[1:3]]
    row, column = (slice(max(middle - cutoff, 0), middle + cutoff) for middle in middles)
    kept = torch.zeros_like(spectrum)
    kept[:, row, column] = spectrum[:, row, column]
    low = torch.fft.ifft2(torch.fft.ifftshift(kept, dim=axes), dim=axes, norm="ortho")
    return low.real.to(patches.dtype)


# tokenwise holds: if the last block leaves out tokens, it has no adapter.
@adapter(
    "earth",
    description="Adapters of all, low and high frequencies of the patches (VisionXLab/Earth-Adapter).",
    config=EarthConfig,
    group="additive",
    tokenwise=True,
)
def attach(sites: Sites, shape: Shape, config: EarthConfig) -> Attached:
    """Attach one adapter, or three and a router, per block.

    A block has 2 * dim * hidden weights, or 6 * dim * hidden + 3 * dim weights if it mixes bands, and 1 float
    s. Biases add hidden + dim floats per adapter and 3 floats per router. The last block has no adapter if
    the head reads the class token only.

    Raises:
        UserError: the backbone has no grid of patches that is the same in all blocks.
    """
    one_of("where", config.where, ("first", "last"))
    one_of("up_start", config.up_start, ("linear", "zero"))
    if config.frequency < 0:
        raise ValueError(f"frequency must be a number of blocks, 0 or more, not {config.frequency}")
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
    """Return the number of rows and columns of the low band on either side of frequency 0.

    Raises:
        UserError: the backbone has no grid of patches that is the same in all blocks.
        ValueError: one of the two bands would be empty.
    """
    if layout.grid is None:
        raise UserError(
            "this adapter needs one grid of patches that is the same in all blocks, as in a vision "
            "transformer: choose another adapter or backbone"
        )
    side = min(layout.grid)
    cutoff = max(1, int(side * share // 2))
    if share <= 0 or 2 * cutoff >= max(layout.grid):
        raise ValueError(f"cutoff={share} leaves one band empty on a grid of {layout.grid} patches")
    return cutoff
