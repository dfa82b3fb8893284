"""LT-SFT (Ansell et al. 2022, repository cambridgeltl/composable-sft): sparse updates of linears' weights.

    W' = W + scatter(positions, values)

W are the frozen weights of all linears of all blocks, K positions choose entries of them, and the values (K,)
are trained. Training has two phases. (a) All weights of qkv, proj, fc1 and fc2 are trained for some epochs;
the K weights that moved most, over all linears together, are chosen, and all weights are restored. (b) The
updates of the chosen weights are trained from zero, or from near zero below 32 bits. With selection=random,
the control, the seed chooses the positions, which then take no bytes.

Translations by this project to vision transformers: the default density and number of epochs; phase (a) is
not quantized; weight decay acts on the updates, not on the weights. The updates of all linears form one
matrix (64, K / 64) with one mean and one standard deviation, because the number of updates per linear is
known only after phase (a), and shapes of matrices must be known before. K is a multiple of 64.

Positions are stored as differences of neighbors in the order of blocks, roles and rows, as planes of bytes,
which the entropy coder of the file compresses. It does so for up to 2**20 updates, which are 1.2 % of the
weights of ViT-B; more are stored unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Calibration, Shape, adapter
from petl_bench.adapters.delta import Delta, DeltaLinear, linears
from petl_bench.backbones.sites import Sites

SELECTIONS = ("moved", "random")

ROWS = 64
"""Number of rows of the matrix of updates and of the planes of differences."""

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class LTSFTConfig:
    density: float = 0.001
    """Fraction of the weights that are updated; above 0 and at most 0.5."""
    selection: str = "moved"
    """Choice of the weights that are updated: moved (those that a first training moves most) or random."""
    epochs: int = 30
    """Number of epochs of the first training, which selection=moved needs; at least 1."""

    def __post_init__(self) -> None:
        if not 0 < self.density <= 0.5:
            raise ValueError(f"density must be above 0 and at most 0.5, not {self.density}")
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be {' or '.join(SELECTIONS)}, not {self.selection!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")


class SparseDelta(Delta):
    """The update of some entries of one weight.

    Attributes:
        positions: row-major positions (updates,) of the entries in the weight.
        first: index of the first update of this weight among the updates of all weights.
    """

    positions: Tensor

    def __init__(self, values: nn.Linear, size: torch.Size) -> None:
        """Set up an update without positions.

        Args:
            values: linear whose weight holds the updates of all weights, in the order of their positions.
            size: shape of the updated weight.
        """
        super().__init__()
        self.values = values
        self.size = size
        self.register_buffer("positions", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.first = 0

    def place(self, positions: Positions, first: int) -> None:
        """Set the positions of the updated entries.

        Args:
            positions: row-major positions (updates,) in this weight.
            first: index of the first of these updates among the updates of all weights.
        """
        self.positions = torch.from_numpy(positions).to(self.positions.device)
        self.first = first

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        return super().forward(base, x) if len(self.positions) else base

    def product(self) -> Tensor:
        held = self.values.weight
        values = held.flatten()[self.first : self.first + len(self.positions)]
        return held.new_zeros(self.size.numel()).scatter(0, self.positions, values).view(self.size)


class Mask:
    """The choice of the updated weights, over all linears together.

    Attributes:
        codes: planes of the bytes of the differences, highest bytes first; empty if the choice is not stored.
    """

    def __init__(self, linears: Sequence[DeltaLinear], count: int, stored: bool) -> None:
        """Set up a choice without positions.

        Args:
            linears: linears with sparse updates.
            count: number of weights to update.
            stored: whether the choice is stored in `codes`.
        """
        self.linears = linears
        self.edges = np.cumsum([0, *(self._delta(linear).size.numel() for linear in linears)])
        self.count = count
        planes = -(-int(self.edges[-1] - 1).bit_length() // 8) if stored else 0
        self.codes = {
            f"gaps.{plane}": torch.zeros(ROWS, count // ROWS, dtype=torch.uint8) for plane in range(planes)
        }

    @staticmethod
    def _delta(linear: DeltaLinear) -> SparseDelta:
        assert isinstance(linear.delta, SparseDelta)
        return linear.delta

    def place(self, positions: Positions) -> None:
        """Set the sorted positions (count,) of the updates in the concatenation of all weights."""
        bounds = np.searchsorted(positions, self.edges)
        for i, linear in enumerate(self.linears):
            own = positions[bounds[i] : bounds[i + 1]] - self.edges[i]
            self._delta(linear).place(own, int(bounds[i]))

    def choose(self, positions: Positions) -> None:
        """Set the positions, and write them to `codes`."""
        self.place(positions)
        gaps = np.diff(positions, prepend=0)
        for plane, codes in enumerate(reversed(self.codes.values())):
            codes.copy_(torch.from_numpy(gaps >> 8 * plane & 255).view(ROWS, -1))

    def decode(self) -> None:
        """Set the positions that `codes` hold."""
        gaps = np.zeros(self.count, np.int64)
        for codes in self.codes.values():
            gaps = (gaps << 8) + codes.cpu().numpy().ravel()
        # The codes of a damaged file may point beyond the last weight.
        self.place(np.minimum(np.cumsum(gaps), self.edges[-1] - 1))

    def calibrate(self, calibration: Calibration, epochs: int) -> None:
        """Run phase (a): train all weights for some epochs, choose those that moved most, and restore all."""
        self.place(np.zeros(0, np.int64))
        weights = [linear.linear.get_parameter("weight") for linear in self.linears]
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.requires_grad_()
        calibration.fit(weights, epochs)
        moved = []
        with torch.no_grad():
            for weight, start in zip(weights, before, strict=True):
                moved.append((weight - start).abs().flatten().cpu())
                weight.copy_(start)
                weight.requires_grad_(False)
                weight.grad = None
        self.choose(greatest(torch.cat(moved), self.count))


def greatest(values: Tensor, count: int) -> Positions:
    """Return the sorted positions of the `count` largest of values (n,), of equal ones the first."""
    least = values.topk(count).values[-1]
    above, ties = (values > least).nonzero()[:, 0], (values == least).nonzero()[:, 0]
    chosen: Positions = torch.cat([above, ties[: count - len(above)]]).sort().values.numpy()
    return chosen


def drawn(seed: int, count: int, among: int) -> Positions:
    """Draw `count` distinct sorted positions below `among`; all sets of positions are equally likely."""
    take = count
    while True:
        words = initialization.words(seed, "adapter.positions", (take,)).astype(np.uint64)
        different, first = np.unique(words * np.uint64(among) >> np.uint64(32), return_index=True)
        if len(different) >= count:
            return np.sort(different[np.argsort(first)[:count]]).astype(np.int64)
        take *= 2


@adapter(
    "lt_sft",
    description="Sparse update of the weights a first training moves most (cambridgeltl/composable-sft).",
    config=LTSFTConfig,
    group="selective",
    tokenwise=True,
    unused={"hidden": 1, "scale": 1.0, "start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: LTSFTConfig) -> Attached:
    """Attach K = density * (weights of all linears) updates: K weights and 0 floats.

    They are the matrix `changes` (64, K / 64). With selection=moved there are as many uint8 codes in each of
    the planes `gaps.N`. Before calibration the choice is random.
    """
    slots = linears(sites)
    frozen = [slot.get() for slot in slots.values()]
    sizes = [linear.weight.shape for linear in frozen if isinstance(linear, nn.Linear)]
    total = sum(size.numel() for size in sizes)
    columns = max(1, round(config.density * total / ROWS))
    values = nn.Linear(columns, ROWS, bias=False)
    changed = [
        DeltaLinear(linear, SparseDelta(values, size)) for linear, size in zip(frozen, sizes, strict=True)
    ]
    for slot, linear in zip(slots.values(), changed, strict=True):
        slot.set(linear)
    moved = config.selection == "moved"
    mask = Mask(changed, ROWS * columns, stored=moved)
    mask.choose(drawn(shape.seed, ROWS * columns, total))
    return Attached(
        matrices={"changes": values},
        codes=mask.codes,
        initializers={"changes": initialization.near_zero if shape.quantized else initialization.zero},
        calibrate=(lambda calibration: mask.calibrate(calibration, config.epochs)) if moved else None,
        decode=mask.decode if moved else lambda: None,
    )
