"""The adapted model: backbone, adapter and head together; quantized, stored, and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from petl_bench import adapters
from petl_bench.backbones import families
from petl_bench.backbones.activations import ActivationReduction
from petl_bench.backbones.precision import COMPUTE, Cast, casts, lower
from petl_bench.backbones.sites import Slot
from petl_bench.errors import UserError
from petl_bench.model import heads
from petl_bench.model.component import Component
from petl_bench.packing import AdapterFile
from petl_bench.quantizers import FakeQuantize, LatentStack
from petl_bench.types import FLOAT_BITS, ModelSpec

CPU = torch.device("cpu")

HEAD_QUANTIZER = "l1_median"
"""The binary head uses the paper's codebook, whatever the adapter uses."""


@dataclass(frozen=True)
class Adapted:
    """A frozen backbone with a trainable adapter and head.

    Attributes:
        network: images (batch, 3, S, S) -> logits (batch, classes), both float32.
        classifier: the head's place in it.
        tunes_backbone: whether parameters of the backbone are trained.
    """

    network: nn.Module
    adapter: Component
    head: Component
    classifier: Slot
    tunes_backbone: bool = False
    weights: list[LatentStack | Cast] = field(default_factory=list)
    """Of a prepared model: what trains apart from the modules that use it."""

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Float32, of a prepared model."""
        return [*self.adapter.trainable, *self.head.trainable]

    def prepare(self, precision: str = "fp32", device: torch.device = CPU) -> None:
        """Ready for training on `device`: the frozen part in `precision`, matrices fake-quantized.

        Raises:
            UserError: int8, and the adapter trains parameters of the backbone.
        """
        if precision == "int8" and self.tunes_backbone:
            raise UserError(
                "precision=int8 is for frozen backbones; this adapter trains parameters of it: bf16 or fp32"
            )
        dtype = COMPUTE[precision]
        for part in (self.adapter, self.head):
            floats = [*chain.from_iterable(part.floats.values())]
            part.stack(dtype, device)
            self.weights.extend([*part.stacks, *part.fixed])
            for parameter in floats:
                parameter.data = parameter.data.to(device)
            if dtype is not torch.float32:
                self.weights.extend(casts(self.network, floats, dtype))
        lower(self.network, precision, device, self.linears)
        self.network.register_forward_pre_hook(lambda module, images: self.materialize())

    def materialize(self) -> None:
        """Give all modules their weights as they are now; every pass through the network does."""
        if self.adapter.attached.each_pass is not None:
            self.adapter.attached.each_pass(self.network.training)
        for weights in self.weights:
            weights.materialize()

    def features(self, run: Callable[[nn.Module], Iterable[Tensor]]) -> Tensor:
        """What arrives at the head when `run` passes images through a network: (images, features) float32."""
        head = self.classifier.get()
        self.classifier.set(nn.Identity())
        try:
            return torch.cat(list(run(self.network)))
        finally:
            self.classifier.set(head)

    def probe(self) -> nn.Module:
        """The head by itself: (batch, features) -> logits, both float32."""
        return Probe(self)

    @property
    def linears(self) -> list[nn.Linear]:
        """Of adapter and head."""
        return [*self.adapter.linears, *self.head.linears]

    def file(self, metadata: dict[str, str], code: bool = False) -> AdapterFile:
        """The file of a trained model; with `code`, coded where that makes it smaller."""
        return AdapterFile(metadata, self.adapter.store(), self.head.store(), code)


class Probe(nn.Module):
    """The head of a prepared model."""

    def __init__(self, adapted: Adapted) -> None:
        super().__init__()
        self.adapted = adapted
        self.head = adapted.head.matrices["weight"]

    def forward(self, features: Tensor) -> Tensor:
        self.adapted.materialize()
        logits: Tensor = self.head(features.to(self.head.weight.dtype))
        return logits.float()


def assemble(spec: ModelSpec, seed: int = 0, drop_path: float = 0.0, activations: str = "full") -> Adapted:
    """A fresh adapted model on the CPU, initialized from `seed`, not yet prepared for training.

    Raises:
        UserError: backbone, adapter, settings, head or quantizer do not exist or do not fit.
    """
    quantized = spec.bits != FLOAT_BITS
    rounded = FakeQuantize(spec.quantizer, spec.bits).rounded if quantized else torch.clone
    network, sites = families.build(spec.backbone, drop_path)
    reduction = ActivationReduction(network, sites, activations)
    torch.manual_seed(seed)
    shape = adapters.Shape(spec.hidden, spec.scale, quantized, seed, rounded)
    attached = adapters.attach(spec.adapter.name, spec.adapter.settings, sites, shape)
    reduction.adapted()
    head = heads.build(spec.head, sites.features, spec.classes, seed)
    sites.head.set(head.module)
    declared = adapters.Attached(matrices={"weight": head.module}, floats=head.floats)
    return Adapted(
        network,
        Component(attached, spec.bits, spec.quantizer),
        Component(declared, head.bits, HEAD_QUANTIZER),
        sites.head,
        any(parameter.requires_grad for parameter in sites.parameters.values()),
    )


def restore(
    spec: ModelSpec, file: AdapterFile, where: str, precision: str = "fp32", device: torch.device = CPU
) -> nn.Module:
    """A fresh model with the weights of an adapter file, for evaluation on `device`.

    Weights are decoded once. In float32, where it changes logits by no more than rounding does, updates that
    are linear are merged into the frozen weights.

    Raises:
        UserError: the file does not fit the model that its metadata describes.
    """
    adapted = assemble(spec, int(file.metadata.get("seed", "0")))
    adapted.adapter.restore(file.adapter, where)
    adapted.head.restore(file.head, where)
    if precision == "fp32":
        adapters.merge(adapted.network)
    adapted.network.requires_grad_(False)
    linears = adapted.adapter.linears if adapted.adapter.attached.float32 else []
    exact = [parameter for linear in linears for parameter in linear.parameters()]
    kept = casts(adapted.network, exact, torch.float32)
    lower(adapted.network, precision, device, adapted.linears)
    for weight in kept:
        weight.parameter.data = weight.parameter.data.to(device)
        weight.materialize()
    return adapted.network
