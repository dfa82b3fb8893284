"""The adapted model: backbone, adapter and head together; quantized, stored, and restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from petl_bench import adapters, backbones, heads
from petl_bench.errors import UserError
from petl_bench.packing import AdapterFile, Entry, StoredTensor
from petl_bench.quantizers import CODEBOOKS, FakeQuantize
from petl_bench.types import FLOAT_BITS, ModelSpec

HEAD_QUANTIZER = "l1_median"
"""The binary head uses the paper's codebook, whatever the adapter uses."""


@dataclass(frozen=True)
class Part:
    """Adapter or head: its matrices, each stored at `bits`, and its float parameters, in file order.

    Each list of `floats` is stored as one float32 vector: a method that trains the backbone's own parameters
    has hundreds, whose names and shapes the backbone knows.
    """

    matrices: dict[str, nn.Linear]
    floats: dict[str, list[nn.Parameter]]
    bits: int
    quantizer: str

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Latent weights of quantized matrices, weights of others, then floats."""
        weights = [_weight(linear) for linear in self.matrices.values()]
        return [*weights, *chain.from_iterable(self.floats.values())]

    @property
    def quantized(self) -> dict[str, tuple[nn.Parameter, FakeQuantize]]:
        """Latent weight and quantizer of each quantized matrix."""
        if self.bits == FLOAT_BITS:
            return {}
        return {name: (_weight(linear), _quantizer(linear)) for name, linear in self.matrices.items()}

    def quantize(self) -> None:
        """Put fake quantization on the matrices; their latent weights become the parameters."""
        if self.bits == FLOAT_BITS:
            return
        for linear in self.matrices.values():
            quantizer = FakeQuantize(self.quantizer, self.bits)
            parametrize.register_parametrization(linear, "weight", quantizer)

    def store(self) -> list[StoredTensor]:
        """What a file holds of this part."""
        stored = []
        for name, linear in self.matrices.items():
            if self.bits == FLOAT_BITS:
                stored.append(_float_tensor(name, linear.weight))
                continue
            codes, shift, spread = _quantizer(linear).encode(_weight(linear))
            entry = Entry(name, tuple(codes.shape), self.bits)
            stored.append(
                StoredTensor(entry, codes=codes.cpu().numpy(), shift=shift.item(), spread=spread.item())
            )
        return stored + [_float_tensor(name, _vector(group)) for name, group in self.floats.items()]

    @torch.no_grad()
    def restore(self, stored: Sequence[StoredTensor], where: str) -> None:
        """Fill a fresh, unquantized part with stored tensors.

        Raises:
            UserError: names, shapes or bits are not those of this part.
        """
        expected = [Entry(name, tuple(m.weight.shape), self.bits) for name, m in self.matrices.items()]
        expected += [Entry(name, tuple(_vector(g).shape), FLOAT_BITS) for name, g in self.floats.items()]
        for entry, tensor in zip(expected, stored, strict=False):
            if entry != tensor.entry:
                raise UserError(f"{where}: holds {tensor.entry} where the model has {entry}")
        if len(expected) != len(stored):
            raise UserError(f"{where}: holds {len(stored)} tensors where the model has {len(expected)}")
        values = map(self._value, stored)
        for linear in self.matrices.values():
            linear.weight.copy_(next(values))
        for group in self.floats.values():
            pieces = next(values).split([parameter.numel() for parameter in group])
            for parameter, piece in zip(group, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))

    def _value(self, tensor: StoredTensor) -> Tensor:
        if tensor.values is not None:
            return torch.from_numpy(tensor.values)
        quantizer = FakeQuantize(self.quantizer, self.bits)
        shift, spread = torch.tensor(tensor.shift), torch.tensor(tensor.spread)
        return quantizer.decode(torch.from_numpy(tensor.codes), shift, spread)


@dataclass(frozen=True)
class Adapted:
    """A frozen backbone with a trainable adapter and head."""

    network: nn.Module
    adapter: Part
    head: Part

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [*self.adapter.trainable, *self.head.trainable]

    def quantize(self) -> None:
        self.adapter.quantize()
        self.head.quantize()

    def file(self, metadata: dict[str, str], code: bool = False) -> AdapterFile:
        """The file of a trained model; with `code`, coded where that makes it smaller."""
        return AdapterFile(metadata, self.adapter.store(), self.head.store(), code)


def assemble(spec: ModelSpec, seed: int = 0, drop_path: float = 0.0) -> Adapted:
    """A fresh adapted model on the CPU, initialized from `seed`, not yet quantized.

    Raises:
        UserError: backbone, adapter, settings, head or quantizer do not exist or do not fit.
    """
    if spec.bits != FLOAT_BITS:
        CODEBOOKS.get(spec.quantizer)
    network, sites = backbones.build(spec.backbone, drop_path)
    torch.manual_seed(seed)
    shape = adapters.Shape(spec.hidden, spec.scale, spec.bits != FLOAT_BITS, seed)
    attached = adapters.attach(spec.adapter.name, spec.adapter.settings, sites, shape)
    head = heads.build(spec.head, sites.features, spec.classes, seed)
    sites.head.set(head.module)
    return Adapted(
        network,
        Part(attached.matrices, attached.floats, spec.bits, spec.quantizer),
        Part({"weight": head.module}, head.floats, head.bits, HEAD_QUANTIZER),
    )


def restore(spec: ModelSpec, file: AdapterFile, where: str) -> nn.Module:
    """A fresh model with the weights of an adapter file.

    Raises:
        UserError: the file does not fit the model that its metadata describes.
    """
    adapted = assemble(spec)
    adapted.adapter.restore(file.adapter, where)
    adapted.head.restore(file.head, where)
    return adapted.network


def _float_tensor(name: str, value: Tensor) -> StoredTensor:
    return StoredTensor(Entry(name, tuple(value.shape), FLOAT_BITS), values=value.detach().cpu().numpy())


def _vector(group: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in group])


def _quantizer(linear: nn.Linear) -> FakeQuantize:
    parametrizations: Any = linear.parametrizations
    quantizer = parametrizations.weight[0]
    assert isinstance(quantizer, FakeQuantize)
    return quantizer


def _weight(linear: nn.Linear) -> nn.Parameter:
    """The parameter that training updates: the latent weight where the linear is quantized."""
    latent: Any = linear.parametrizations if parametrize.is_parametrized(linear) else None
    weight = linear.weight if latent is None else latent.weight.original
    assert isinstance(weight, nn.Parameter)
    return weight
