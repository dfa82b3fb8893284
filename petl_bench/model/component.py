"""Adapter or head of a model: its matrices and floats, quantized for training, stored, and restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from petl_bench import adapters
from petl_bench.errors import UserError
from petl_bench.packing import Entry, StoredTensor
from petl_bench.quantizers import FakeQuantize, LatentStack, stack_by_shape
from petl_bench.types import FLOAT_BITS

CODE_BITS = 8
"""Of the bytes that a method stores as they are."""


@dataclass(frozen=True)
class Component:
    """Adapter or head: what it declares, its matrices stored at `bits`.

    Each list of `attached.floats` is stored as one float32 vector: a method that trains the backbone's own
    parameters has hundreds, whose names and shapes the backbone knows.
    """

    attached: adapters.Attached
    bits: int
    quantizer: str
    stacks: list[LatentStack] = field(default_factory=list)
    """Where the weights of trained matrices are once the part is prepared for training."""
    fixed: list[LatentStack] = field(default_factory=list)
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
    def calibrated(self) -> dict[str, Tensor]:
        """What a prepared part stores without training it: codes, and the latents of fixed matrices."""
        return self.attached.codes | {
            name: value for name, value in self.latents.items() if name in self.attached.fixed
        }

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
        dtype = torch.float32 if self.attached.float32 else dtype
        self.stacks.extend(stack_by_shape(self.attached.matrices.values(), quantizer, dtype, device))
        self.fixed.extend(stack_by_shape(self.attached.fixed.values(), quantizer, dtype, device))
        for stack in self.fixed:
            stack.latent.requires_grad_(False)

    def store(self) -> list[StoredTensor]:
        """What a file holds of this part, prepared and trained."""
        stored = []
        for name, latent in self.latents.items():
            if not self._codes:
                stored.append(_float_tensor(name, latent))
                continue
            codes, mean, std = self._codebook.encode(latent)
            entry = Entry(name, tuple(codes.shape), self.bits)
            stored.append(StoredTensor(entry, codes=codes.cpu().numpy(), mean=mean.item(), std=std.item()))
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
        self.attached.decode()
        for group in self.floats.values():
            pieces = self._value(next(tensors)).split([parameter.numel() for parameter in group])
            for parameter, piece in zip(group, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))

    def _value(self, tensor: StoredTensor) -> Tensor:
        if tensor.values is not None:
            return torch.from_numpy(tensor.values)
        mean, std = torch.tensor(tensor.mean), torch.tensor(tensor.std)
        return self._codebook.decode(torch.from_numpy(tensor.codes), mean, std)


def _float_tensor(name: str, value: Tensor) -> StoredTensor:
    return StoredTensor(Entry(name, tuple(value.shape), FLOAT_BITS), values=value.detach().cpu().numpy())


def _vector(group: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in group])
