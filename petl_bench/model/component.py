"""Components of an adapted model, its adapter and its head: quantized in training, stored, and restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from petl_bench import adapters
from petl_bench.errors import UserError, counted
from petl_bench.packing import Entry, StoredTensor
from petl_bench.quantizers import FakeQuantize, LatentStack, stack_by_shape
from petl_bench.types import FLOAT_BITS

CODE_BITS = 8
"""Bits of each number in the uint8 tensors that a method stores unchanged."""


@dataclass(frozen=True)
class Component:
    """The adapter or the head of a model.

    Each list of `attached.floats` is stored as one float32 vector, since a method that trains the backbone's
    own parameters has hundreds of them, whose names and shapes the backbone knows.

    Attributes:
        attached: matrices and float parameters that the method declares.
        bits: bits per weight of the stored matrices.
        quantizer: name of the codebook; not used at 32 bits.
        stacks: latent weights of the trained matrices, once `prepare` has been called.
        fixed_stacks: latent weights of the matrices that are stored without being trained, likewise.
    """

    attached: adapters.Attached
    bits: int
    quantizer: str
    stacks: list[LatentStack] = field(default_factory=list)
    fixed_stacks: list[LatentStack] = field(default_factory=list)

    @property
    def matrices(self) -> dict[str, nn.Linear]:
        """The stored matrices by name, in the order of the file."""
        trained = self.attached.matrices.items()
        return {name: m for name, m in trained if name not in self.attached.spare} | self.attached.fixed

    @property
    def floats(self) -> dict[str, list[nn.Parameter]]:
        """The float32 parameters by name; each list is stored as one vector."""
        return self.attached.floats

    @property
    def linears(self) -> list[nn.Linear]:
        """All matrices, whether they are stored or not."""
        return [*self.attached.matrices.values(), *self.attached.fixed.values()]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The trainable parameters of a prepared component: stacks of latent weights, then floats."""
        return [stack.latent for stack in self.stacks] + [*chain.from_iterable(self.floats.values())]

    @property
    def latents(self) -> dict[str, Tensor]:
        """The latent float32 weights of the stored matrices of a prepared component, sharing its memory."""
        by_linear = {
            linear: latent
            for stack in (*self.stacks, *self.fixed_stacks)
            for linear, latent in zip(stack.linears, stack.latent.detach(), strict=True)
        }
        return {name: by_linear[linear] for name, linear in self.matrices.items()}

    @property
    def calibrated(self) -> dict[str, Tensor]:
        """The tensors of a prepared component that are stored without being trained."""
        return self.attached.codes | {
            name: value for name, value in self.latents.items() if name in self.attached.fixed
        }

    @property
    def quantized(self) -> dict[str, tuple[Tensor, FakeQuantize]]:
        """The latent weight and the quantizer of each trained and quantized matrix, once prepared."""
        if not self._has_codes:
            return {}
        latents = self.latents.items()
        return {name: (latent, self._quantize) for name, latent in latents if name in self.attached.matrices}

    @property
    def entries(self) -> list[Entry]:
        """The stored tensors of a component that is not prepared yet, in the order of the file."""
        entries = [Entry(name, tuple(m.weight.shape), self.bits) for name, m in self.matrices.items()]
        entries += [Entry(name, tuple(c.shape), CODE_BITS) for name, c in self.attached.codes.items()]
        return entries + [Entry(name, tuple(_vector(g).shape), FLOAT_BITS) for name, g in self.floats.items()]

    def prepare(self, dtype: torch.dtype, device: torch.device) -> None:
        """Move the weights of all matrices into latent stacks, which are fake-quantized below 32 bits.

        Args:
            dtype: dtype that the matrices are used in, unless the method requires float32.
            device: device of the latent weights.
        """
        quantizer = self._quantize.to(device) if self._has_codes else None
        dtype = torch.float32 if self.attached.float32 else dtype
        self.stacks.extend(stack_by_shape(self.attached.matrices.values(), quantizer, dtype, device))
        self.fixed_stacks.extend(stack_by_shape(self.attached.fixed.values(), quantizer, dtype, device))
        for stack in self.fixed_stacks:
            stack.latent.requires_grad_(False)

    def store(self) -> list[StoredTensor]:
        """Return the tensors that a file holds of a prepared and trained component."""
        stored = []
        for name, latent in self.latents.items():
            if not self._has_codes:
                stored.append(_float_tensor(name, latent))
                continue
            codes, mean, std = self._quantize.encode(latent)
            entry = Entry(name, tuple(codes.shape), self.bits)
            stored.append(StoredTensor(entry, codes=codes.cpu().numpy(), mean=mean.item(), std=std.item()))
        stored += [
            StoredTensor(Entry(name, tuple(codes.shape), CODE_BITS), codes=codes.cpu().numpy())
            for name, codes in self.attached.codes.items()
        ]
        return stored + [_float_tensor(name, _vector(group)) for name, group in self.floats.items()]

    @property
    def _has_codes(self) -> bool:
        return self.bits != FLOAT_BITS

    @cached_property
    def _quantize(self) -> FakeQuantize:
        return FakeQuantize(self.quantizer, self.bits)

    @torch.no_grad()
    def restore(self, stored: Sequence[StoredTensor], where: str) -> None:
        """Fill a component that is not prepared yet with stored tensors.

        Args:
            stored: tensors in the order of the file.
            where: path of the file, for messages.

        Raises:
            UserError: names, shapes or bits differ from those of this component.
        """
        expected = self.entries
        for entry, tensor in zip(expected, stored, strict=False):
            if entry != tensor.entry:
                raise UserError(f"{where}: holds {tensor.entry} where the model has {entry}")
        if len(expected) != len(stored):
            raise UserError(
                f"{where}: holds {counted(len(stored), 'tensor')} where the model has {len(expected)}"
            )
        tensors = iter(stored)
        for linear in self.matrices.values():
            linear.weight.copy_(self._decode(next(tensors)))
        for codes in self.attached.codes.values():
            codes.copy_(torch.from_numpy(next(tensors).codes))
        self.attached.decode()
        for group in self.floats.values():
            pieces = self._decode(next(tensors)).split([parameter.numel() for parameter in group])
            for parameter, piece in zip(group, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))

    def _decode(self, tensor: StoredTensor) -> Tensor:
        if tensor.values is not None:
            return torch.from_numpy(tensor.values)
        mean, std = torch.tensor(tensor.mean), torch.tensor(tensor.std)
        return self._quantize.decode(torch.from_numpy(tensor.codes), mean, std)


def _float_tensor(name: str, value: Tensor) -> StoredTensor:
    return StoredTensor(Entry(name, tuple(value.shape), FLOAT_BITS), values=value.detach().cpu().numpy())


def _vector(group: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in group])
