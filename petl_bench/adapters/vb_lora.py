"""VB-LoRA (Li et al. 2024, arXiv 2405.15179): matrices of LoRA, put together from the vectors of one bank.

    y = W x + b + s * up @ dropout(down @ x)
    piece i of all rows of down and columns of up = sum over j of weight[i, j] * bank[index[i, j]]

W (outputs, inputs) and b (outputs,) are the frozen projection of q or v, down is (hidden, inputs) and up
(outputs, hidden). Their rows and columns are cut into pieces of `length` numbers, and bank (vectors, length)
is shared by all of them. In training each piece has a logit for every vector of the bank: index[i] are the
`mixed` largest ones, and weight[i] is the softmax of these. The bank is initialized uniformly between -0.02
and 0.02, and the logits from a normal distribution with standard deviation 0.1. So training starts near the
frozen backbone, but not exactly there.

A file holds the bank, and for each piece the numbers of its vectors and all weights but that of the first
vector, in one byte each. Training rounds the weights likewise and passes gradients straight through. The
logits are float32 and not stored.

Source: the paper, and huggingface/peft, tuners/vblora, whose weights are not rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.delta import ComputedPair, query_value
from petl_bench.adapters.rows import at_least_one
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError

BOUND = 0.02
"""Largest magnitude of the initial values of the bank."""
DEVIATION = 0.1
"""Standard deviation of the initial logits."""
LONGEST = 256
"""Length of a piece unless another one is chosen; a shorter one where it divides no width."""
STEPS = 255
"""Steps of a stored weight, which is one byte, between 0 and the largest value it can have."""


@dataclass(frozen=True)
class VBLoRAConfig:
    vectors: int = 60
    """Number of vectors of the bank; 2 to 256, so that the number of a vector is one byte."""
    length: int = 0
    """Numbers of a vector, which divide all widths; 0: the most, up to 256, that do."""
    mixed: int = 2
    """Number of vectors that a piece is the weighted mean of; at least 1."""
    dropout: float = 0.0
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""

    def __post_init__(self) -> None:
        if not 2 <= self.vectors <= 256:
            raise ValueError(f"vectors must be 2 to 256, not {self.vectors}")
        if self.length < 0:
            raise ValueError(f"length must be 0 or more, not {self.length}")
        if not 1 <= self.mixed <= self.vectors:
            raise ValueError(f"mixed must be 1 to {self.vectors} (vectors), not {self.mixed}")


class Choice:
    """The vectors of all pieces and their weights in one pass of a training model.

    No attribute of a module, because a compiled graph would be compiled again wherever the last pass left
    another one, as evaluations do.

    Attributes:
        index, weights: as those of `Pieces`; None where a file has decided them.
    """

    index: Tensor | None = None
    weights: Tensor | None = None


class Pieces(nn.Module):
    """The vectors that each piece is composed of, and their weights.

    Attributes:
        logits: trained logits (pieces, vectors), float32 in every precision, and therefore no parameter of
            this module.
        codes: numbers of vectors `index.J`, and rounded weights `weight.J` of all but the first, uint8
            (1, pieces).
        index: numbers of the vectors of each piece (pieces, mixed), int64, by the codes of a file.
        weights: weights of these vectors (pieces, mixed), whose sum is 1, by the codes of a file.
    """

    index: Tensor
    weights: Tensor

    def __init__(self, bank: nn.Linear, count: int, mixed: int, seed: int) -> None:
        super().__init__()
        self.bank = bank
        self.mixed = mixed
        self._choice = Choice()
        start = initialization.normal(DEVIATION)(seed, "adapter.logits", (count, bank.out_features))
        self._logits = (nn.Parameter(torch.from_numpy(start)),)
        names = [f"index.{j}" for j in range(mixed)] + [f"weight.{j}" for j in range(1, mixed)]
        self.codes = {name: torch.zeros(1, count, dtype=torch.uint8) for name in names}
        self.register_buffer("index", torch.zeros(count, mixed, dtype=torch.int64), persistent=False)
        self.register_buffer("weights", torch.zeros(count, mixed), persistent=False)

    @property
    def logits(self) -> nn.Parameter:
        """The trained logits (pieces, vectors)."""
        return self._logits[0]

    @property
    def chosen(self) -> tuple[Tensor, Tensor]:
        """Index and weights (pieces, mixed) that this pass uses."""
        index, weights = self._choice.index, self._choice.weights
        return (self.index, self.weights) if index is None or weights is None else (index, weights)

    def choose(self, training: bool) -> None:
        """Choose vectors and weights by the logits."""
        largest = self.logits.topk(self.mixed, dim=-1)
        soft = largest.values.softmax(-1)
        rounded = [(soft[:, j] * _steps(j)).round() / _steps(j) for j in range(1, self.mixed)]
        self._choice.index = largest.indices
        self._choice.weights = soft + (_with_first(rounded, soft) - soft).detach()

    def encode(self) -> None:
        """Write the choice by the logits to `codes`."""
        with torch.no_grad():
            self.choose(training=False)
            index, weights = self.chosen
            for j in range(self.mixed):
                self.codes[f"index.{j}"].copy_(index[:, j])
                if j:
                    self.codes[f"weight.{j}"].copy_((weights[:, j] * _steps(j)).round())

    def decode(self) -> None:
        """Set the choice that `codes` hold."""
        self._choice.index = self._choice.weights = None
        count = self.bank.out_features
        numbers = torch.cat([self.codes[f"index.{j}"] for j in range(self.mixed)]).t().long()
        # The codes of a damaged file may point beyond the last vector.
        self.index = numbers.clamp(max=count - 1)
        others = [self.codes[f"weight.{j}"][0] / _steps(j) for j in range(1, self.mixed)]
        self.weights = _with_first(others, torch.ones(len(numbers), 1))

    def piece(self, first: int, count: int) -> Tensor:
        """Return `count` pieces (count, length)."""
        index, weights = (held[first : first + count] for held in self.chosen)
        vectors = self.bank.weight[index]
        return (weights.unsqueeze(-1).to(vectors.dtype) * vectors).sum(1)


def _steps(j: int) -> float:
    """Return the steps per unit of the weight of vector j, which is at most 1 / (j + 1) as weights fall."""
    return float(STEPS * (j + 1))


def _with_first(others: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return weights (pieces, mixed) whose sum is 1.

    Args:
        others: weights (pieces,) of all vectors but the first.
        like: tensor (pieces, ...) of the dtype and on the device of the weights.
    """
    first = torch.ones_like(like[:, 0])
    for other in others:
        first = first - other
    return torch.stack([first, *others], 1)


class Composed(nn.Module):
    """A matrix whose rows, or columns, are put together from pieces.

    Args:
        pieces: all pieces.
        first: number of the first piece of this matrix.
        size: shape of the matrix.
        columns: whether its columns are put together, piece by piece of all columns.
    """

    def __init__(self, pieces: Pieces, first: int, size: tuple[int, int], columns: bool) -> None:
        super().__init__()
        self.pieces = pieces
        self.first = first
        self.size = size
        self.columns = columns

    def forward(self) -> Tensor:
        """Return the matrix."""
        rows, columns = self.size
        length = self.pieces.bank.in_features
        found = self.pieces.piece(self.first, rows * columns // length)
        if not self.columns:
            return found.view(rows, columns)
        return found.view(-1, columns, length).transpose(1, 2).reshape(rows, columns)


@adapter(
    "vb_lora",
    description="LoRA whose matrices are put together from a bank of vectors (VB-LoRA, arXiv 2405.15179).",
    config=VBLoRAConfig,
    group="low-rank",
    tokenwise=True,
    unused={"start": 0.0, "float_bits": 32},
)
def attach(sites: Sites, shape: Shape, config: VBLoRAConfig) -> Attached:
    """Attach one matrix `bank` (vectors, length): vectors * length weights and 0 floats.

    There are `mixed` numbers of vectors and mixed - 1 rounded weights for each piece, all uint8, and logits
    (pieces, vectors) that are trained but not stored.

    Raises:
        UserError: hidden is less than 1, or the length does not divide a width.
    """
    rank = at_least_one(shape)
    updates: dict[str, tuple[ComputedPair, int, int]] = {}

    def update(name: str, inputs: int, outputs: int) -> ComputedPair:
        pair = ComputedPair(nn.Identity(), nn.Identity(), shape.scale, config.dropout)
        updates[name] = pair, inputs, outputs
        return pair

    for number, block in enumerate(sites.blocks):
        query_value(block, number, update)
    shared = math.gcd(*(width for _, inputs, outputs in updates.values() for width in (inputs, outputs)))
    length = config.length or next(n for n in range(min(LONGEST, shared), 0, -1) if shared % n == 0)
    if shared % length:
        raise UserError(
            f"adapter.length={length} does not divide all widths of the updated linears: choose a divisor of "
            f"{shared}"
        )
    total = sum(rank * (inputs + outputs) // length for _, inputs, outputs in updates.values())
    bank = nn.Linear(length, config.vectors, bias=False)
    pieces, first = Pieces(bank, total, config.mixed, shape.seed), 0
    for pair, inputs, outputs in updates.values():
        pair.down = Composed(pieces, first, (rank, inputs), columns=False)
        first += rank * inputs // length
        pair.up = Composed(pieces, first, (outputs, rank), columns=True)
        first += rank * outputs // length
    return Attached(
        matrices={"bank": bank},
        codes=pieces.codes,
        initializers={"bank": initialization.uniform(BOUND)},
        unstored=[pieces.logits],
        each_pass=pieces.choose,
        encode=pieces.encode,
        decode=pieces.decode,
    )
