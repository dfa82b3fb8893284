"""MoSA (Zhang et al. 2023, arXiv 2312.02923): an adapter of which each training step updates a random part.

    y = x + mlp(x) + s * (up @ dropout(gelu(down @ LN(x) + c)) + e)

x (dim,) is a token of the residual stream before the MLP branch mlp, LN a trained layer norm of the adapter,
down (hidden, dim), up (dim, hidden), c (hidden,), e (dim,) and s the fixed scale. The seed assigns the
elements of `up` to a number of experts in equal shares. Each training pass draws one expert per block for the
whole batch, and uses experts * (elements of that expert, 0 elsewhere) in place of `up`. Evaluation uses `up`,
the mean over experts of what training uses. `down`, the biases and the norm are shared by all experts.
Training adds `consistency` times the symmetric KL divergence between the outputs of two passes with their own
draws to the loss.

Source: repository Theia-4869/MoSA. Differences: the source has one copy of `up` per expert, all initialized
with zeros, and stores their mean; here one matrix holds that mean (inferred to be equivalent). The gradient
of an element is `experts` times that of the source and its value is the fraction 1 / experts, so that steps
of the source correspond to a learning rate divided by `experts`. Below 32 bits the whole matrix is quantized
before it is masked, because most entries of a masked matrix are zero. The source has one `e` per expert, here
there is one, trained in every step. For one task the source shares `up` and splits `down`; this is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import one_of
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites


@dataclass(frozen=True)
class MosaConfig:
    experts: int = 4
    """Number of experts that the elements of up are assigned to; 1 to 256."""
    norm: str = "own"
    """Normalization before down: none, or own (a trained layer norm)."""
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    consistency: float = 1.0
    """Weight of the symmetric KL divergence between two passes with other experts, at least 0; with 0
    there is one pass."""


class Mosa(nn.Module):
    """The adapter of one MLP branch: d + scale * (up @ dropout(gelu(down @ LN(x) + c)) + e).

    Args:
        down: weight (hidden, dim).
        up: weight (dim, hidden).
        experts: number of the expert of each element of `up`, uint8 (dim, hidden).
        scale: fixed factor.
        config: settings of the adapter.
    """

    experts: Tensor

    def __init__(
        self, down: nn.Linear, up: nn.Linear, experts: Tensor, scale: float, config: MosaConfig
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(down.in_features, eps=1e-6) if config.norm == "own" else nn.Identity()
        self.down = down
        self.up = up
        self.down_bias = nn.Parameter(torch.zeros(down.out_features))
        self.up_bias = nn.Parameter(torch.zeros(up.out_features))
        self.count = config.experts
        self.register_buffer("experts", experts, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.scale = scale

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """Return the branch output d plus the adapter of x; x, z, d and the result are (batch, ..., dim)."""
        hidden = functional.gelu(functional.linear(self.norm(x), self.down.weight, self.down_bias))
        update = functional.linear(self.dropout(hidden), self.drawn(), self.up_bias)
        return torch.add(d, update, alpha=self.scale)

    def drawn(self) -> Tensor:
        """Return the matrix (dim, hidden) that this pass uses in place of `up`."""
        if not self.training:
            return self.up.weight
        expert = torch.randint(self.count, (), device=self.experts.device)
        return self.up.weight * (self.count * (self.experts == expert))


@adapter(
    "mosa",
    description="Adapter parallel to the MLP, a random part of it trained at each step (arXiv 2312.02923).",
    config=MosaConfig,
    group="additive",
    tokenwise=True,
)
def attach(sites: Sites, shape: Shape, config: MosaConfig) -> Attached:
    """Attach one adapter per block: 2 * dim * hidden weights and dim + hidden floats of biases.

    A block has 2 * dim more floats with norm=own.
    """
    if not 1 <= config.experts <= 256:
        raise ValueError(f"experts must be between 1 and 256, not {config.experts}")
    if config.consistency < 0:
        raise ValueError(f"consistency must be 0 or more, not {config.consistency}")
    one_of("norm", config.norm, ("own", "none"))
    attached = Attached(consistency=config.consistency)
    for number, block in enumerate(sites.blocks):
        down, up = pair(attached, str(number), block.dim, block.dim, shape)
        experts = dealt(shape.seed, f"adapter.{number}.experts", (block.dim, shape.hidden), config.experts)
        module = Mosa(down, up, experts, shape.scale, config)
        attached.floats.setdefault("biases", []).extend([module.down_bias, module.up_bias])
        if config.norm == "own":
            attached.floats.setdefault("norms", []).extend(module.norm.parameters())
        block.branch("mlp").join(module)
    return attached


def dealt(seed: int, name: str, size: tuple[int, int], experts: int) -> Tensor:
    """Assign each element of a matrix to an expert at random.

    Args:
        seed: seed of the run.
        name: name of the random stream.
        size: shape of the matrix.
        experts: number of experts.

    Returns:
        Numbers of experts, uint8 of shape `size`; the shares of experts differ by one element at most.
    """
    order = np.argsort(initialization.words(seed, name, size), axis=None, kind="stable")
    dealt = np.empty(order.size, np.uint8)
    dealt[order] = np.arange(order.size) * experts // order.size
    return torch.from_numpy(dealt.reshape(size))
