"""Bottleneck adapters on the branches of a block: one general form, and those of the literature by name.

    A(v) = up @ dropout(activation(down @ v + a)) + c         down (hidden, dim), up (dim, hidden)

    series    d + s * A(d)         d: what the branch gives, after layer scale and drop path
    parallel  d + s * A(x)         x: the residual stream that feeds the branch
    normed    d + s * A(z)         z: the same, normalized; in ConvNeXt after the depthwise convolution
    after     d + s * A(x + d)     x + d: what the block goes on with

`adaptformer` is bottleneck with placement=parallel, activation=relu and bias=false.

houlsby       Houlsby et al. 2019 (arXiv 1902.00751) as visinf/adapter_plus has it: in series on both
              branches; norms=true trains the backbone's norms with it, as there.
pfeiffer      Pfeiffer et al. 2021 (arXiv 2005.00247) as ZhangYuanhan-AI/NOAH has it: in series after the
              MLP. placement=after with norm=own is the variant of visinf/adapter_plus, A(LN(x + d)).
adapter_plus  Steitz and Roth 2024 (visinf/adapter_plus): of the block's output, a learned factor a channel.

series or normed with tanh is that of AGI-Edgerunners/LLM-Adapters (translation to ViT), gate that of VL-PET
(petl_bench.adapters.gates). Where sources draw biases (normal 1e-6) they start at zero here; in ConvNeXt
d is after drop path, in the sources before it.
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
    """Branches with an adapter: mlp, attention or both; both are all that a block has."""
    placement: str = "series"
    """What feeds the adapter: series, parallel, normed or after."""
    activation: str = "gelu"
    """relu, gelu, quick_gelu, tanh or swish."""
    bias: bool = False
    """Whether down and up have biases, in float32."""
    norm: str = "none"
    """Before down: none, or own, a layer norm that is trained."""
    norms: bool = False
    """Whether the backbone's layer norms are trained too."""
    dropout: float = 0.1
    """Between activation and up."""
    drop_path: float = 0.0
    """Share of the images of a batch that an adapter is left out for in training."""
    learned_scale: str = "none"
    """A factor that is trained, which starts at the scale: none, scalar, or channel, one a channel."""
    down_start: str = "linear"
    """Start of down: linear (torch's), xavier, or normal, cut off at two deviations."""
    up_start: str = "zero"
    """Start of up: the same, or zero; below 32 bits zero is near zero."""
    deviation: float = 0.01
    """Of starts that are normal."""
    gate: str = "none"
    """Of VL-PET, on branch and adapter together: none, large, middle_x, middle_y or small."""


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
    """x, z, d -> d + s * A(what the placement says), gated."""

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
        """All (batch, ..., dim); of x and z only as many tokens are used as d has."""
        tokens = d.shape[1]
        x, z = x[:, :tokens], z[:, :tokens]
        fed = {"series": d, "parallel": x, "normed": z}.get(self.placement)
        update = self.update(x + d if fed is None else fed)
        update = update * (self.scale if self.factor is None else self.factor)
        y = d + drop_path(update, self.drop_path, self.training)
        return y if self.gate is None else self.gate(z, y)

    def update(self, v: Tensor) -> Tensor:
        """A of v (batch, ..., dim), of the same shape."""
        if self.norm is not None:
            v = self.norm(v)
        hidden = nn.functional.linear(v, self.down.weight, self.down_bias)
        hidden = self.dropout(self.activation(hidden))
        return nn.functional.linear(hidden, self.up.weight, self.up_bias)

    def floats(self) -> Mapping[str, list[nn.Parameter]]:
        """Its own, by the names they are stored under."""
        found: dict[str, list[nn.Parameter | None]] = {
            "biases": [self.down_bias, self.up_bias],
            "norms": [] if self.norm is None else [self.norm.weight, self.norm.bias],
            "scales": [self.factor],
        }
        return {name: [p for p in group if p is not None] for name, group in found.items()}


@adapter("adapter_plus", config=AdapterPlusConfig, group="additive")
@adapter("pfeiffer", config=PfeifferConfig, group="additive")
@adapter("houlsby", config=HoulsbyConfig, group="additive")
@adapter("bottleneck", config=BottleneckConfig, group="additive")
def attach(sites: Sites, shape: Shape, config: BottleneckConfig) -> Attached:
    """A branch: 2 * dim * hidden weights.

    Floats: hidden + dim with biases, 2 * dim with its own norm, 1 or dim with a learned scale. Gates: 2 *
    dim * hidden (large), dim (middle_x) or 2 * dim (small) weights, or dim floats (middle_y).
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
    if config.gate != "small":  # its mean is over all tokens
        sites.drop_unread()
    return attached


def _checked(config: BottleneckConfig) -> dict[str, initialization.Initializer]:
    """The starts that the configuration may name, where all of it is in order."""
    one_of("placement", config.placement, PLACEMENTS)
    one_of("activation", config.activation, ACTIVATIONS)
    one_of("norm", config.norm, NORMS)
    one_of("learned_scale", config.learned_scale, LEARNED)
    one_of("down_start", config.down_start, STARTS[:-1])  # from two zeros neither matrix gets a gradient
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
    """Names of the parameters of the backbone's layer norms."""
    operations = [operation.slot.get() for operation in sites.operations]
    held = {id(p) for found in operations if isinstance(found, nn.LayerNorm) for p in found.parameters()}
    return [name for name, parameter in sites.parameters.items() if id(parameter) in held]
