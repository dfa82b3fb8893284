"""Adapted models: a backbone with an adapter and a head, prepared for training, stored, and restored."""

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
from petl_bench.backbones.sharing import SharedCopy
from petl_bench.backbones.sites import Slot
from petl_bench.errors import UserError
from petl_bench.model import heads
from petl_bench.model.component import Component
from petl_bench.model.compression import FORMS
from petl_bench.model.floats import QuantizedFloats
from petl_bench.packing import AdapterFile
from petl_bench.quantizers import FakeQuantize, JointStack, LatentStack
from petl_bench.types import FLOAT_BITS, HEAD_QUANTIZER, NOT_COMPRESSED, ModelSpec

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Adapted:
    """A frozen backbone with a trainable adapter and head.

    Attributes:
        network: images (batch, 3, S, S) -> logits (batch, classes), both float32.
        adapter: component of the adapter.
        head: component of the head.
        classifier: slot of the head in the network.
        trains_backbone: whether the adapter trains parameters of the backbone.
        weights: once `prepare` has been called, the float32 parameters that are kept apart from the modules
            that use them.
    """

    network: nn.Module
    adapter: Component
    head: Component
    classifier: Slot
    trains_backbone: bool = False
    weights: list[LatentStack | JointStack | QuantizedFloats | Cast] = field(default_factory=list)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The trainable parameters of a prepared model, all float32."""
        return [*self.adapter.trainable, *self.head.trainable]

    def prepare(self, precision: str = "fp32", device: torch.device = CPU) -> None:
        """Prepare the model for training.

        Args:
            precision: precision of the frozen part: fp32, bf16 or int8.
            device: device that the model is moved to.

        Raises:
            UserError: the precision is int8 and the adapter trains parameters of the backbone.
        """
        if precision == "int8" and self.trains_backbone:
            raise UserError(
                "precision=int8 needs a frozen backbone, and this adapter trains parameters of it: "
                "use bf16 or fp32"
            )
        dtype = COMPUTE[precision]
        for component in (self.adapter, self.head):
            floats = [*chain.from_iterable(component.floats.values())]
            component.prepare(self.network, dtype, device)
            self.weights.extend([*component.stacks, *component.fixed_stacks, *component.deviations.values()])
            for parameter in (*floats, *component.attached.unstored):
                parameter.data = parameter.data.to(device)
            if dtype is not torch.float32:
                self.weights.extend(casts(self.network, floats, dtype))
        lower(self.network, precision, device, self.linears)
        # The hook must not hold the network, or a finished model would outlive its last use.
        each_pass, weights = self.adapter.attached.each_pass, self.weights
        self.network.register_forward_pre_hook(lambda module, _: _materialize(module, each_pass, weights))

    def materialize(self) -> None:
        """Give all modules their current weights; called before each forward pass of the network."""
        _materialize(self.network, self.adapter.attached.each_pass, self.weights)

    def features(self, run: Callable[[nn.Module], Iterable[Tensor]]) -> Tensor:
        """Return the inputs of the head for the images that `run` passes through the network.

        Args:
            run: function of a network that returns the network's outputs in batches.

        Returns:
            Features (images, features), float32.
        """
        head = self.classifier.get()
        self.classifier.set(nn.Identity())
        try:
            return torch.cat(list(run(self.network)))
        finally:
            self.classifier.set(head)

    def probe(self) -> nn.Module:
        """Return a module that applies the head alone: features (batch, features) -> logits, both float32."""
        return Probe(self)

    @property
    def linears(self) -> list[nn.Linear]:
        """The matrices of adapter and head."""
        return [*self.adapter.linears, *self.head.linears]

    def file(self, metadata: dict[str, str], code: bool = False, short: bool = False) -> AdapterFile:
        """Return the adapter file of a trained model.

        Args:
            metadata: metadata of the file (petl_bench.packing.describe).
            code: whether codes are entropy-coded where that makes a section smaller.
            short: whether the container is the short one.
        """
        shared = self.adapter.statistics_of != "matrix"
        adapter, head = self.adapter.store(), self.head.store()
        return AdapterFile(metadata, adapter, head, code, short=short, shared=shared)


def _materialize(
    network: nn.Module,
    each_pass: Callable[[bool], None] | None,
    weights: Iterable[LatentStack | JointStack | QuantizedFloats | Cast],
) -> None:
    if each_pass is not None:
        each_pass(network.training)
    for held in weights:
        held.materialize()


class Probe(nn.Module):
    """The head of a prepared model: features (batch, features) -> logits (batch, classes), both float32."""

    def __init__(self, adapted: Adapted) -> None:
        super().__init__()
        self.adapted = adapted
        self.head = adapted.head.matrices["weight"]

    def forward(self, features: Tensor) -> Tensor:
        self.adapted.materialize()
        logits: Tensor = self.head(features.to(self.head.weight.dtype))
        return logits.float()


def assemble(
    spec: ModelSpec,
    seed: int = 0,
    drop_path: float = 0.0,
    activations: str = "full",
    backbone: SharedCopy | None = None,
    start: float = 0.0,
    statistics_of: str = "matrix",
) -> Adapted:
    """Build an adapted model on the CPU that is not yet prepared for training.

    Args:
        spec: description of the model.
        seed: seed of the initialization.
        drop_path: stochastic depth rate at the last block (petl_bench.backbones.families.build).
        activations: kind of activations kept for the backward pass (petl_bench.backbones.activations).
        backbone: the backbone, for a model whose weights will be restored from a file, so that they are not
            initialized; None: it is built.
        start: bound of the uniform initialization of pairs of matrices; 0: that of the method.
        statistics_of: what is standardized together in training; see `Component`. A file states the mean and
            the std of each matrix, so that a restored model does not need it.

    Raises:
        UserError: backbone, adapter, settings, head or quantizer do not exist or do not fit together, or
            `start` is given and the adapter has no pairs.
    """
    # A compressed adapter was trained at 32 bits, and starts as it did.
    quantized = spec.bits != FLOAT_BITS and spec.compress == NOT_COMPRESSED
    rounded = FakeQuantize(spec.quantizer, spec.bits).rounded if quantized else torch.clone
    network, sites = (
        families.build(spec.backbone, drop_path) if backbone is None else (backbone.network, backbone.sites)
    )
    reduction = ActivationReduction(network, sites, activations)
    torch.manual_seed(seed)
    shape = adapters.Shape(spec.hidden, spec.scale, quantized, seed, rounded, start)
    form = FORMS.get(spec.compress)
    attach = adapters.attach if backbone is None or form is not None else adapters.declare
    attached = attach(spec.adapter.name, spec.adapter.settings, sites, shape)
    reduction.adapter_attached()
    classifier, features = sites.head, sites.features
    if (replacement := attached.replacement) is not None:
        network, features = replacement.network, replacement.features
        classifier = Slot(network, "head")
    head = heads.build(spec.head, features, spec.classes, seed)
    classifier.set(head.module)
    declared = adapters.Attached(matrices={"weight": head.module}, floats=head.floats)
    adapter = Component(
        attached, spec.bits, spec.quantizer, spec.float_bits, seed, statistics_of, spec.compress
    )
    if form is not None:
        form.check(adapter, network)
    elif spec.float_bits != FLOAT_BITS and not adapter.quantized_floats:
        raise UserError(
            f"float_bits={spec.float_bits}: adapter {spec.adapter.name} with these settings has no float "
            f"parameters to quantize; leave it at {FLOAT_BITS}"
        )
    return Adapted(
        network,
        adapter,
        Component(declared, head.bits, HEAD_QUANTIZER),
        classifier,
        any(parameter.requires_grad for parameter in sites.parameters.values()),
    )


def restore(
    spec: ModelSpec,
    file: AdapterFile,
    where: str,
    precision: str = "fp32",
    device: torch.device = CPU,
    backbone: SharedCopy | None = None,
) -> nn.Module:
    """Return a model for evaluation with the weights of an adapter file.

    Weights are decoded once. In fp32, linear updates are merged into the frozen weights, which changes logits
    by rounding errors only.

    Args:
        spec: description of the model.
        file: loaded adapter file.
        where: path of the file, for messages.
        precision: precision of the frozen part: fp32, bf16 or int8.
        device: device of the model.
        backbone: copy of the backbone for this model alone, whose parameters others share; None: it is built.

    Raises:
        UserError: the file does not fit the model.
    """
    adapted = assemble(spec, int(file.metadata.get("seed", "0")), backbone=backbone)
    if backbone is not None:
        backbone.own(chain.from_iterable(adapted.adapter.floats.values()))
    adapted.adapter.restore(file.adapter, where)
    adapted.head.restore(file.head, where)
    if precision == "fp32":
        adapters.merge(adapted.network)
    adapted.network.requires_grad_(False)
    linears = adapted.adapter.linears if adapted.adapter.attached.float32 else []
    float32 = [parameter for linear in linears for parameter in linear.parameters()]
    kept = casts(adapted.network, float32, torch.float32)
    if backbone is not None:
        backbone.place()
    lower(adapted.network, precision, device, adapted.linears)
    for weight in kept:
        weight.parameter.data = weight.parameter.data.to(device)
        weight.materialize()
    return adapted.network
