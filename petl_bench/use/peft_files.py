"""Folders of PEFT adapters (Hugging Face peft) for LoRA on timm models: their form, and how they are written.

PEFT adds scaling * B A to the weight of a linear, with A (r, inputs), B (outputs, r) and scaling = alpha / r.
The adapter `lora` updates queries and values of a fused projection, each by a pair of its own of h hidden
units. As one pair of PEFT these have r = 2 h,

    A = [q.down; v.down]        B = [[q.up, 0], [0, 0], [0, v.up]]

with rows for queries, keys and values, and alpha = scale * r. Other updates of low rank are pairs as well:
that of `dylora` of its kept ranks, that of `pissa` and `corda` with twice their rank, since their initial
product is subtracted, and that of `fact_tt` and `fact_tk` with the rank of their core.

Source: peft, tuners/lora/layer.py (`LoraLayer`) and utils/save_and_load.py (names of tensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from petl_bench.adapters.decomposed import Moved
from petl_bench.adapters.delta import SLICES, DeltaLinear, LowRank, Slices
from petl_bench.adapters.dylora import Nested
from petl_bench.adapters.fact import Factorized
from petl_bench.adapters.kronecker import Kronecker
from petl_bench.backbones import families
from petl_bench.backbones.sites import FirstToken
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.use.agreement import require_equal_logits
from petl_bench.use.files import Trained
from petl_bench.use.merging import timm_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
METADATA = "petl-bench"
"""Entry of the metadata of WEIGHTS with the metadata of the adapter file, as JSON."""
PLAIN = {"bias": "none", "use_dora": False, "fan_in_fan_out": False, "lora_bias": False}
"""Settings of PEFT that must have these values, where they are stated."""


@dataclass(frozen=True)
class Pair:
    """The update scaling * up @ down of one linear: down (r, inputs), up (outputs, r)."""

    down: Tensor
    up: Tensor
    scaling: float


def as_peft(trained: Trained) -> dict[str, bytes]:
    """Return the files of a folder that `PeftModel.from_pretrained` loads onto the plain timm model.

    Args:
        trained: an adapter file of a method whose updates are low-rank updates of linears of timm's model.

    Raises:
        UserError: the method is another one, or timm's model has no such linears.
    """
    model, where = trained.facts.model, trained.where
    refusal = f"{where}: PEFT has no form of {model.adapter.name} on {trained.backbone.display_name}"
    adapted = assemble(model, int(trained.file.metadata.get("seed", "0")))
    adapted.adapter.restore(trained.file.adapter, where)
    adapted.head.restore(trained.file.head, where)
    pairs: dict[str, Pair] = {}
    for name, module in timm_modules(adapted.network):
        if isinstance(module, DeltaLinear) and (pair := _pair(module.delta)) is not None:
            pairs[name] = pair
        elif type(module).__module__.startswith("petl_bench.") and not _inside(name, pairs):
            raise UserError(f"{refusal}: {_reason(module)}")
    if not pairs:
        raise UserError(f"{refusal}: it has no low-rank update; --to timm writes the weights")
    network, sites = families.build(model.backbone)
    sites.head.set(adapted.classifier.get())
    plain = timm_model(network, trained.backbone, model.classes, refusal)
    head = _head(plain)
    if head is None:
        raise UserError(f"{refusal}: timm's model has no single linear classifier")
    for name, pair in pairs.items():
        _update(plain, name, pair, refusal)
    expected = restore(model, trained.file, where).eval()
    require_equal_logits(expected, plain, trained.backbone.image_size, refusal)
    stored: dict[str, Tensor] = dict(adapted.network.get_submodule(head).named_parameters())
    tensors = {f"{PREFIX}{head}.weight": stored["weight"]}
    tensors[f"{PREFIX}{head}.bias"] = stored.get("bias", torch.zeros(model.classes))
    for name, pair in pairs.items():
        tensors |= {f"{PREFIX}{name}.lora_A.weight": pair.down, f"{PREFIX}{name}.lora_B.weight": pair.up}
    contiguous = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    metadata = {"format": "pt", METADATA: json.dumps(trained.file.metadata)}
    config = _config(pairs, head, model.adapter.settings.get("dropout", 0.0))
    return {CONFIG: config, WEIGHTS: save(contiguous, metadata)}


def _reason(module: nn.Module) -> str:
    """Return why a module of an adapter has no form in PEFT."""
    if isinstance(module, DeltaLinear) and isinstance(module.delta, Kronecker):
        (m, n), (p, q) = (_weights(held)[0].shape for held in (module.delta.lefts, module.delta.rights))
        return (
            f"its updates are Kronecker products of factors {m} x {n} and {p} x {q}; LoKr of PEFT divides "
            "the outputs and the inputs of all linears by one number (decompose_factor)"
        )
    named = module.delta if isinstance(module, DeltaLinear) else module
    return f"{type(named).__name__} is no low-rank update of a linear"


def _config(pairs: dict[str, Pair], head: str, dropout: float) -> bytes:
    ranks = {name: len(pair.down) for name, pair in pairs.items()}
    alphas = {name: pair.scaling * ranks[name] for name, pair in pairs.items()}
    first = next(iter(pairs))
    content = {
        "peft_type": "LORA",
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != ranks[first]},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != alphas[first]},
        "target_modules": list(pairs),
        "modules_to_save": [head],
        "lora_dropout": dropout,
        "inference_mode": True,
        **PLAIN,
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def timm_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules by the names that they have in timm's model."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FirstToken):
                setattr(parent, name, child.module)
    yield from network.named_modules()


def _inside(name: str, updates: dict[str, Pair]) -> bool:
    return any(name.startswith(f"{outer}.") for outer in updates)


@torch.no_grad()
def _pair(delta: nn.Module) -> Pair | None:
    """Return an update as one pair, or None if it has no low rank."""
    match delta:
        case LowRank():
            return Pair(delta.down.weight, delta.up.weight, delta.scale)
        case Nested():
            pairs = [*zip(*map(_weights, (delta.downs, delta.ups)), strict=True)][: delta.kept]
            downs, ups = zip(*pairs, strict=True)
            return Pair(torch.cat(downs), torch.cat(ups, dim=1), delta.scale / delta.kept)
        case Moved():
            (start_down,), (start_up,) = _weights([delta.start_down]), _weights([delta.start_up])
            down = torch.cat([delta.down.weight - start_down, start_down])
            return Pair(down, torch.cat([delta.up.weight, delta.up.weight - start_up], dim=1), delta.scale)
        case Factorized():
            core, rank = delta.core.matrix(), delta.u.out_features
            down = torch.block_diag(*[delta.u.weight] * (core.shape[1] // rank))
            up = torch.block_diag(*[delta.v.weight] * (core.shape[0] // rank))
            wide = core.shape[0] <= core.shape[1]
            return Pair(core @ down if wide else down, up if wide else up @ core, delta.scale)
        case Slices():
            return _fused({name: _pair(part) for name, part in delta.deltas.items()})
    return None


def _weights(modules: Any) -> list[Tensor]:
    return [module.weight for module in modules]


def _fused(found: dict[str, Pair | None]) -> Pair | None:
    """Return the updates of slices of a fused projection as one pair of the whole projection."""
    parts = {name: part for name in SLICES if (part := found.get(name)) is not None}
    if len(parts) != len(found) or len({part.scaling for part in parts.values()}) != 1:
        return None
    outputs = len(next(iter(parts.values())).up)
    ups = [
        nn.functional.pad(parts[name].up, (0, 0, at * outputs, (len(SLICES) - 1 - at) * outputs))
        for at, name in enumerate(SLICES)
        if name in parts
    ]
    downs = [part.down for part in parts.values()]
    return Pair(torch.cat(downs), torch.cat(ups, dim=1), next(iter(parts.values())).scaling)


class _Updated(nn.Module):
    """A linear with an update, as PEFT has it: `weight` and `bias` are still those of the linear."""

    def __init__(self, linear: nn.Linear, pair: Pair) -> None:
        super().__init__()
        self.linear, self.pair = linear, pair
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map x (batch, ..., inputs) to (batch, ..., outputs)."""
        update = nn.functional.linear(nn.functional.linear(x, self.pair.down), self.pair.up)
        result: Tensor = self.linear(x) + self.pair.scaling * update
        return result


def _update(plain: nn.Module, name: str, pair: Pair, refusal: str) -> None:
    """Update a linear of a timm model.

    Raises:
        UserError: the model has no such linear.
    """
    parent, _, last = name.rpartition(".")
    linear = dict(plain.named_modules()).get(name)
    if not isinstance(linear, nn.Linear):
        raise UserError(f"{refusal}: timm's model has no linear {name}")
    setattr(plain.get_submodule(parent), last, _Updated(linear, pair))


def _head(plain: Any) -> str | None:
    """Return the name of the classifier of a timm model; None unless it is one linear."""
    classifier = plain.get_classifier()
    names = [name for name, module in plain.named_modules() if module is classifier]
    return names[0] if names and isinstance(classifier, nn.Linear) else None
