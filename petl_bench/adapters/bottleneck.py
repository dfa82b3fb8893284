"""Bottleneck adapters on the branches of a block: one general form and three published methods.

    A(v) = up @ dropout(activation(down @ v + a)) + c

    placement   output of the branch   input v of the adapter
    series      d + s * A(d)           d: the branch output after layer scale and drop path
    parallel    d + s * A(x)           x: the residual stream that feeds the branch
    normed      d + s * A(z)           z: x after the branch's norm, in ConvNeXt after its convolution
    after       d + s * A(x + d)       x + d: the residual stream after the branch

v, d, x and z are (dim,) for each token, down (hidden, dim), up (dim, hidden), a (hidden,), c (dim,), and s is
the fixed scale, or a trained factor or vector (dim,).

Sources of the named methods, which differ in their defaults only:
- houlsby: Houlsby et al. 2019 (arXiv 1902.00751) as in repository visinf/adapter_plus, in series on both
  branches. That repository also trains the layer norms of the backbone, as norms=true does.
- pfeiffer: Pfeiffer et al. 2021 (arXiv 2005.00247) as in repository ZhangYuanhan-AI/NOAH, in series after the
  MLP. placement=after with norm=own is the variant A(LN(x + d)) of visinf/adapter_plus.
- adapter_plus: Steitz and Roth 2024, repository visinf/adapter_plus, on the output of the block with one
  learned factor per channel.
`adaptformer` equals bottleneck with placement=parallel, activation=relu and bias=false. The placements series
and normed with activation tanh follow AGI-Edgerunners/LLM-Adapters, translated to vision transformers.
Gates follow VL-PET, see petl_bench.adapters.gates.

Differences from the sources: biases start at zero where a source draws them from a normal distribution with
standard deviation 1e-6. In ConvNeXt d is taken after drop path, in the sources before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from timm.layers import drop_path
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.adapters.base import Attached, Shape, adapter
from petl_bench.adapters.branches import ACTIVATIONS, joined, one_of, probability
from petl_bench.adapters.gates import GATES, gate
from petl_bench.adapters.lowrank import pair
from petl_bench.backbones.sites import Sites

PLACEMENTS = ("series", "parallel", "normed", "after")
NORMS = ("none", "own")
LEARNED = ("none", "scalar", "channel")
STARTS = ("linear", "xavier", "normal", "zero")


@dataclass(frozen=True)
class BottleneckConfig:
    sites: str = "mlp"
    """Branches that get an adapter: mlp, attention, or both (all branches of a block)."""
    placement: str = "series"
    """Input of the adapter: series (branch output), parallel (residual stream), normed (normalized
    residual stream) or after (residual stream after the branch)."""
    activation: str = "gelu"
    """Activation between down and up: relu, gelu, quick_gelu, tanh or swish."""
    bias: bool = False
    """Add biases to down and up, which are stored in float32."""
    norm: str = "none"
    """Normalization before down: none, or own (a trained layer norm)."""
    norms: bool = False
    """Train the layer norms of the backbone as well."""
    dropout: float = 0.1
    """Probability that a hidden unit is zeroed in training; at least 0 and at most 1."""
    drop_path: float = 0.0
    """Probability that the adapter is skipped for an image in training; at least 0 and below 1."""
    learned_scale: str = "none"
    """Trained factors that replace the fixed scale and start at it: none, scalar, or channel (one per
    channel)."""
    down_start: str = "linear"
    """Initializer of down: linear (that of torch.nn.Linear), xavier, or normal (truncated at two
    standard deviations)."""
    up_start: str = "zero"
    """Initializer of up: linear, xavier, normal or zero; below 32 bits zero stands for values near zero."""
    deviation: float = 0.01
    """Standard deviation of the initializer normal; above 0."""
    gate: str = "none"
    """Gate of VL-PET on the sum of branch and adapter: none, large, middle_x, middle_y or small."""


@dataclass(frozen=True)
class HoulsbyConfig(BottleneckConfig):
    sites: str = "both"
    bias: bool = True
    dropout: float = 0.0
    drop_path: float = 0.1
    down_start: str = "normal"
    up_start: str = "normal"


@dataclass(frozen=True)
class PfeifferConfig(BottleneckConfig):
    activation: str = "quick_gelu"
    bias: bool = True
    down_start: str = "xavier"
    up_start: str = "xavier"


@dataclass(frozen=True)
class AdapterPlusConfig(BottleneckConfig):
    placement: str = "after"
    bias: bool = True
    dropout: float = 0.0
    drop_path: float = 0.1
    learned_scale: str = "channel"
    down_start: str = "normal"
    up_start: str = "normal"


class Bottleneck(nn.Module):
    """The adapter of one branch, with its gate.

    Args:
        down: weight (hidden, dim).
        up: weight (dim, hidden).
        scale: fixed factor, or the initial value of the trained factors.
        config: settings of the adapter.
        gate: module of z and of the branch output with adapter, or None.
    """

    def __init__(
        self,
        down: nn.Linear,
        up: nn.Linear,
        scale: float,
        config: BottleneckConfig,
        gate: nn.Module | None,
    ) -> None:
        super().__init__()
        dim = down.in_features
        self.placement = config.placement
        self.norm = nn.LayerNorm(dim, eps=1e-6) if config.norm == "own" else None
        self.down = down
        self.up = up
        self.down_bias = nn.Parameter(torch.zeros(down.out_features)) if config.bias else None
        self.up_bias = nn.Parameter(torch.zeros(dim)) if config.bias else None
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = config.drop_path
        factors = {"none": 0, "scalar": 1, "channel": dim}[config.learned_scale]
        self.factor = nn.Parameter(torch.full((factors,), scale)) if factors else None
        self.scale = scale
        self.gate = gate

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """Return the branch output with adapter, of the shape of d.

        Args:
            x: residual stream that feeds the branch (batch, ..., dim).
            z: x after the first module of the branch (batch, ..., dim).
            d: branch output (batch, ..., dim), which may have fewer tokens than x and z; their first tokens
                are used.
        """
        tokens = d.shape[1]
        x, z = x[:, :tokens], z[:, :tokens]
        fed = {"series": d, "parallel": x, "normed": z}.get(self.placement)
        update = self.update(x + d if fed is None else fed)
        update = update * (self.scale if self.factor is None else self.factor)
        y = d + drop_path(update, self.drop_path, self.training)
        return y if self.gate is None else self.gate(z, y)

    def update(self, v: Tensor) -> Tensor:
        """Return A(v), without the scale; v and the result are (batch, ..., dim)."""
        if self.norm is not None:
            v = self.norm(v)
        hidden = nn.functional.linear(v, self.down.weight, self.down_bias)
        hidden = self.dropout(self.activation(hidden))
        return nn.functional.linear(hidden, self.up.weight, self.up_bias)

    def floats(self) -> Mapping[str, list[nn.Parameter]]:
        """Return the float parameters of the adapter by the names of the vectors that store them."""
        found: dict[str, list[nn.Parameter | None]] = {
            "biases": [self.down_bias, self.up_bias],
            "norms": [] if self.norm is None else [self.norm.weight, self.norm.bias],
            "scales": [self.factor],
        }
        return {name: [p for p in group if p is not None] for name, group in found.items()}


@adapter(
    "adapter_plus",
    description="Bottleneck on each block's output, a trained factor per channel (visinf/adapter_plus).",
    config=AdapterPlusConfig,
    group="additive",
    unused={"scale": 1.0},
)
@adapter(
    "pfeiffer",
    description="Bottleneck in series after the MLP (arXiv 2005.00247, as in ZhangYuanhan-AI/NOAH).",
    config=PfeifferConfig,
    group="additive",
)
@adapter(
    "houlsby",
    description="Bottlenecks in series on both branches (arXiv 1902.00751, as in visinf/adapter_plus).",
    config=HoulsbyConfig,
    group="additive",
)
@adapter(
    "bottleneck",
    description="Bottleneck on branches of a block; input, norm, activation, scale and gate are settings.",
    config=BottleneckConfig,
    group="additive",
)
def attach(sites: Sites, shape: Shape, config: BottleneckConfig) -> Attached:
    """Attach one adapter per chosen branch: 2 * dim * hidden weights each.

    Each adapter has hidden + dim floats with bias=true, 2 * dim with norm=own, and 1 or dim with a learned
    scale. Gates add 2 * dim * hidden (large), dim (middle_x) or 2 * dim (small) weights, or dim floats
    (middle_y). With norms=true all parameters of the layer norms of the backbone are floats, too.
    """
    starts = _checked(config)
    attached = Attached()
    own = _norms(sites) if config.norms else []
    for number, block in enumerate(sites.blocks):
        for role, branch in joined(block, config.sites).items():
            name = f"{number}.{role}"
            down, up = pair(attached, name, block.dim, block.dim, shape)
            attached.initializers[f"{name}.down"] = starts[config.down_start]
            if config.up_start != "zero":
                attached.initializers[f"{name}.up"] = starts[config.up_start]
            gating = gate(config.gate, attached, name, block.dim, shape)
            module = Bottleneck(down, up, shape.scale, config, gating)
            for kind, group in module.floats().items():
                if group:
                    attached.floats.setdefault(kind, []).extend(group)
            branch.join(module)
    if own:
        attached.floats["backbone_norms"] = sites.unfreeze(own)
    if config.gate != "small":  # this gate takes a mean over all tokens
        sites.drop_unread()
    return attached


def _checked(config: BottleneckConfig) -> dict[str, initialization.Initializer]:
    """Check all settings, and return the initializers by the names that they have in the settings.

    Raises:
        ValueError: a setting is out of range.
    """
    one_of("placement", config.placement, PLACEMENTS)
    one_of("activation", config.activation, ACTIVATIONS)
    one_of("norm", config.norm, NORMS)
    one_of("learned_scale", config.learned_scale, LEARNED)
    one_of("down_start", config.down_start, STARTS[:-1])  # two zeros give no gradient
    one_of("up_start", config.up_start, STARTS)
    one_of("gate", config.gate, GATES)
    probability("drop_path", config.drop_path)
    if config.deviation <= 0:
        raise ValueError(f"deviation must be above 0, not {config.deviation}")
    return {
        "linear": initialization.linear,
        "xavier": initialization.xavier,
        "normal": initialization.normal(config.deviation, 2),
    }


def _norms(sites: Sites) -> list[str]:
    """Return the names of all parameters of the layer norms of the backbone."""
    operations = [operation.slot.get() for operation in sites.operations]
    held = {id(p) for found in operations if isinstance(found, nn.LayerNorm) for p in found.parameters()}
    return [name for name, parameter in sites.parameters.items() if id(parameter) in held]
