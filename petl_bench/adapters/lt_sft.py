"""LT-SFT (Ansell et al. 2022, repository cambridgeltl/composable-sft): sparse changes of linears' weights.

    W = W0 + scatter(positions, delta)

(a) All weights of qkv, proj, fc1, fc2 are trained for some epochs; the K that moved most, over all of them
together, are chosen, and everything is put back. (b) The changes of the chosen ones are trained, from zero.
The control has a random choice, which costs no bytes: the seed says it.

Translations of ours to ViT: the default density and epochs; phase (a) has no quantizer; the change decays,
not the weight. And the changes of all linears are one matrix, with one shift and one spread, where those of
each linear could have their own: how many a linear gets is known after phase (a) only, but the shape of a
matrix before. K is a multiple of 64.

Positions are stored as gaps between neighbours in the order of blocks, roles, rows, in planes of bytes, which
the file's coder makes as small as their distribution allows, up to 2^20 changes (1.2 % of ViT-B's weights);
more are stored as they are.
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
"""Of the matrix of changes and of the planes of gaps: what the file's coder takes together."""

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class LTSFTConfig:
    density: float = 0.001
    """Fraction of the weights that change; above 0, at most 0.5."""
    selection: str = "moved"
    """How they are chosen: `moved` most in phase (a), or `random`."""
    epochs: int = 30
    """Of phase (a); selection `moved` only."""

    def __post_init__(self) -> None:
        if not 0 < self.density <= 0.5:
            raise ValueError(f"density must be above 0 and at most 0.5, not {self.density}")
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be {' or '.join(SELECTIONS)}, not {self.selection!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")


class SparseDelta(Delta):
    """The change of some entries of a weight.

    Attributes:
        positions: (changes,) of the entries, row-major.
        first: of the changes, the place of this weight's first among those of all weights.
    """

    positions: Tensor

    def __init__(self, values: nn.Linear, size: torch.Size) -> None:
        """No change until it is placed.

        Args:
            values: its weight holds the changes of all weights, in the order of their positions.
            size: of the weight that changes.
        """
        super().__init__()
        self.values = values
        self.size = size
        self.register_buffer("positions", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.first = 0

    def place(self, positions: Positions, first: int) -> None:
        """Change the entries at these positions from now on."""
        self.positions = torch.from_numpy(positions).to(self.positions.device)
        self.first = first

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        return super().forward(base, x) if len(self.positions) else base

    def product(self) -> Tensor:
        held = self.values.weight
        values = held.flatten()[self.first : self.first + len(self.positions)]
        return held.new_zeros(self.size.numel()).scatter(0, self.positions, values).view(self.size)


class Mask:
    """Which weights change, of all linears together.

    Attributes:
        codes: planes of the gaps, the highest bytes first; empty where the choice is not stored.
    """

    def __init__(self, linears: Sequence[DeltaLinear], count: int, stored: bool) -> None:
        """Nowhere yet.

        Args:
            linears: with sparse deltas.
            count: of weights that are going to change.
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
        """Change the weights at these positions from now on: sorted, of all weights one after another."""
        bounds = np.searchsorted(positions, self.edges)
        for i, linear in enumerate(self.linears):
            own = positions[bounds[i] : bounds[i + 1]] - self.edges[i]
            self._delta(linear).place(own, int(bounds[i]))

    def choose(self, positions: Positions) -> None:
        """The same, and remember it in the codes."""
        self.place(positions)
        gaps = np.diff(positions, prepend=0)
        for plane, codes in enumerate(reversed(self.codes.values())):
            codes.copy_(torch.from_numpy(gaps >> 8 * plane & 255).view(ROWS, -1))

    def decode(self) -> None:
        """Place as the codes say."""
        gaps = np.zeros(self.count, np.int64)
        for codes in self.codes.values():
            gaps = (gaps << 8) + codes.cpu().numpy().ravel()
        # The codes of a damaged file may point beyond the last weight.
        self.place(np.minimum(np.cumsum(gaps), self.edges[-1] - 1))

    def calibrate(self, calibration: Calibration, epochs: int) -> None:
        """Phase (a)."""
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
    """Sorted positions of the `count` greatest of (n,) values; of equal ones the first."""
    least = values.topk(count).values[-1]
    above, ties = (values > least).nonzero()[:, 0], (values == least).nonzero()[:, 0]
    chosen: Positions = torch.cat([above, ties[: count - len(above)]]).sort().values.numpy()
    return chosen


def drawn(seed: int, count: int, among: int) -> Positions:
    """`count` sorted positions below `among`, no two the same, all sets of them as likely."""
    take = count
    while True:
        words = initialization.words(seed, "adapter.positions", (take,)).astype(np.uint64)
        different, first = np.unique(words * np.uint64(among) >> np.uint64(32), return_index=True)
        if len(different) >= count:
            return np.sort(different[np.argsort(first)[:count]]).astype(np.int64)
        take *= 2


@adapter("lt_sft", config=LTSFTConfig, group="selective", tokenwise=True)
def attach(sites: Sites, shape: Shape, config: LTSFTConfig) -> Attached:
    """One matrix of changes (64, K / 64), density * weights in all; as many gaps, a byte a plane, uncoded.

    Until it is calibrated the choice is a random one.
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
