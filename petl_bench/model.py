"""The adapted model: backbone, adapter and head together; quantized, stored, and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from petl_bench import adapters, backbones, heads
from petl_bench.activations import Economy
from petl_bench.errors import UserError
from petl_bench.packing import AdapterFile, Entry, StoredTensor
from petl_bench.precision import COMPUTE, Cast, casts, lower
from petl_bench.quantizers import FakeQuantize, Stack, stacked
from petl_bench.sites import Slot
from petl_bench.types import FLOAT_BITS, ModelSpec

CPU = torch.device("cpu")

CODE_BITS = 8
"""Of the bytes that a method stores as they are."""

HEAD_QUANTIZER = "l1_median"
"""The binary head uses the paper's codebook, whatever the adapter uses."""


@dataclass(frozen=True)
class Part:
    """Adapter or head: what it declares, its matrices stored at `bits`.

    Each list of `attached.floats` is stored as one float32 vector: a method that trains the backbone's own
    parameters has hundreds, whose names and shapes the backbone knows.
    """

    attached: adapters.Attached
    bits: int
    quantizer: str
    stacks: list[Stack] = field(default_factory=list)
    """Where the weights of trained matrices are once the part is prepared for training."""
    fixed: list[Stack] = field(default_factory=list)
    """Where those of fixed ones are."""

    @property
    def matrices(self) -> dict[str, nn.Linear]:
        """Those that are stored, in file order."""
        trained = self.attached.matrices.items()
        return {name: m for name, m in trained if name not in self.attached.spare} | self.attached.fixed

    @property
    def floats(self) -> dict[str, list[nn.Parameter]]:
        return self.attached.floats

    @property
    def linears(self) -> list[nn.Linear]:
        """All matrices, stored or not."""
        return [*self.attached.matrices.values(), *self.attached.fixed.values()]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Of a prepared part: stacks of latent weights, then floats."""
        return [stack.latent for stack in self.stacks] + [*chain.from_iterable(self.floats.values())]

    @property
    def latents(self) -> dict[str, Tensor]:
        """The float32 weight of each matrix of a prepared part, sharing its memory."""
        held = {
            linear: latent
            for stack in (*self.stacks, *self.fixed)
            for linear, latent in zip(stack.linears, stack.latent.detach(), strict=True)
        }
        return {name: held[linear] for name, linear in self.matrices.items()}

    @property
    def quantized(self) -> dict[str, tuple[Tensor, FakeQuantize]]:
        """Latent weight and quantizer of each trained and quantized matrix of a prepared part."""
        if not self._codes:
            return {}
        latents = self.latents.items()
        return {name: (latent, self._codebook) for name, latent in latents if name in self.attached.matrices}

    @property
    def entries(self) -> list[Entry]:
        """What a file holds of this part, not yet prepared."""
        found = [Entry(name, tuple(m.weight.shape), self.bits) for name, m in self.matrices.items()]
        found += [Entry(name, tuple(c.shape), CODE_BITS) for name, c in self.attached.codes.items()]
        return found + [Entry(name, tuple(_vector(g).shape), FLOAT_BITS) for name, g in self.floats.items()]

    def stack(self, dtype: torch.dtype, device: torch.device) -> None:
        """Take the matrices out of their modules; below 32 bits they are fake-quantized from now on."""
        quantizer = self._codebook.to(device) if self._codes else None
        self.stacks.extend(stacked(self.attached.matrices.values(), quantizer, dtype, device))
        self.fixed.extend(stacked(self.attached.fixed.values(), quantizer, dtype, device))
        for stack in self.fixed:
            stack.latent.requires_grad_(False)

    def store(self) -> list[StoredTensor]:
        """What a file holds of this part, prepared and trained."""
        stored = []
        for name, latent in self.latents.items():
            if not self._codes:
                stored.append(_float_tensor(name, latent))
                continue
            codes, shift, spread = self._codebook.encode(latent)
            entry = Entry(name, tuple(codes.shape), self.bits)
            stored.append(
                StoredTensor(entry, codes=codes.cpu().numpy(), shift=shift.item(), spread=spread.item())
            )
        stored += [
            StoredTensor(Entry(name, tuple(codes.shape), CODE_BITS), codes=codes.cpu().numpy())
            for name, codes in self.attached.codes.items()
        ]
        return stored + [_float_tensor(name, _vector(group)) for name, group in self.floats.items()]

    @property
    def _codes(self) -> bool:
        return self.bits != FLOAT_BITS

    @cached_property
    def _codebook(self) -> FakeQuantize:
        return FakeQuantize(self.quantizer, self.bits)

    @torch.no_grad()
    def restore(self, stored: Sequence[StoredTensor], where: str) -> None:
        """Fill a fresh part with stored tensors.

        Raises:
            UserError: names, shapes or bits are not those of this part.
        """
        expected = self.entries
        for entry, tensor in zip(expected, stored, strict=False):
            if entry != tensor.entry:
                raise UserError(f"{where}: holds {tensor.entry} where the model has {entry}")
        if len(expected) != len(stored):
            raise UserError(f"{where}: holds {len(stored)} tensors where the model has {len(expected)}")
        tensors = iter(stored)
        for linear in self.matrices.values():
            linear.weight.copy_(self._value(next(tensors)))
        for held in self.attached.codes.values():
            held.copy_(torch.from_numpy(next(tensors).codes))
        if self.attached.decode is not None:
            self.attached.decode()
        for group in self.floats.values():
            pieces = self._value(next(tensors)).split([parameter.numel() for parameter in group])
            for parameter, piece in zip(group, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))

    def _value(self, tensor: StoredTensor) -> Tensor:
        if tensor.values is not None:
            return torch.from_numpy(tensor.values)
        shift, spread = torch.tensor(tensor.shift), torch.tensor(tensor.spread)
        return self._codebook.decode(torch.from_numpy(tensor.codes), shift, spread)


@dataclass(frozen=True)
class Adapted:
    """A frozen backbone with a trainable adapter and head.

    Attributes:
        network: images (batch, 3, S, S) -> logits (batch, classes), both float32.
        classifier: the head's place in it.
        tunes_backbone: whether parameters of the backbone are trained.
    """

    network: nn.Module
    adapter: Part
    head: Part
    classifier: Slot
    tunes_backbone: bool = False
    weights: list[Stack | Cast] = field(default_factory=list)
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
    network, sites = backbones.build(spec.backbone, drop_path)
    economy = Economy(network, sites, activations)
    torch.manual_seed(seed)
    shape = adapters.Shape(spec.hidden, spec.scale, quantized, seed, rounded)
    attached = adapters.attach(spec.adapter.name, spec.adapter.settings, sites, shape)
    economy.adapted()
    head = heads.build(spec.head, sites.features, spec.classes, seed)
    sites.head.set(head.module)
    declared = adapters.Attached(matrices={"weight": head.module}, floats=head.floats)
    return Adapted(
        network,
        Part(attached, spec.bits, spec.quantizer),
        Part(declared, head.bits, HEAD_QUANTIZER),
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
    lower(adapted.network, precision, device, adapted.linears)
    return adapted.network


def _float_tensor(name: str, value: Tensor) -> StoredTensor:
    return StoredTensor(Entry(name, tuple(value.shape), FLOAT_BITS), values=value.detach().cpu().numpy())


def _vector(group: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in group])
