"""Components of an adapted model, its adapter and its head: quantized in training, stored, and restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from petl_bench import adapters
from petl_bench.errors import UserError, counted
from petl_bench.model.compression import FORMS
from petl_bench.model.floats import LEAST, QuantizedFloats, split, vector
from petl_bench.packing import Entry, StoredTensor, role_of
from petl_bench.quantizers import FakeQuantize, JointStack, LatentStack, stack_by_shape
from petl_bench.types import FLOAT_BITS, NOT_COMPRESSED

CODE_BITS = 8
"""Bits of each number in the uint8 tensors that a method stores unchanged."""


@dataclass(frozen=True)
class Component:
    """The adapter or the head of a model.

    Each list of `attached.floats` is stored as one vector, since a method that trains the backbone's own
    parameters has hundreds of them, whose names and shapes the backbone knows. It holds float32 values, or
    below 32 `float_bits` codes of the deviations from the initial values, unless it is very short.

    Attributes:
        attached: matrices and float parameters that the method declares.
        bits: bits per weight of the stored matrices.
        quantizer: name of the codebook; not used at 32 bits.
        float_bits: bits per number of the stored floats.
        seed: seed of the initial deviations of quantized floats.
        statistics_of: what is standardized together below 32 bits: each `matrix`, all matrices of a `role`
            (of one name but for the number of the block), or all of the `adapter`.
        compress: how it was compressed after training at 32 bits, which decides what a file holds.
        stacks: latent weights of the trained matrices, once `prepare` has been called.
        fixed_stacks: latent weights of the matrices that are stored without being trained, likewise.
        deviations: latent deviations of quantized floats by name, likewise.
    """

    attached: adapters.Attached
    bits: int
    quantizer: str
    float_bits: int = FLOAT_BITS
    seed: int = 0
    statistics_of: str = "matrix"
    compress: str = NOT_COMPRESSED
    stacks: list[LatentStack | JointStack] = field(default_factory=list)
    fixed_stacks: list[LatentStack | JointStack] = field(default_factory=list)
    deviations: dict[str, QuantizedFloats] = field(default_factory=dict)

    @property
    def matrices(self) -> dict[str, nn.Linear]:
        """The stored matrices by name, in the order of the file."""
        trained = self.attached.matrices.items()
        return {name: m for name, m in trained if name not in self.attached.spare} | self.attached.fixed

    @property
    def floats(self) -> dict[str, list[nn.Parameter]]:
        """The float parameters by name; each list is stored as one vector."""
        return self.attached.floats

    @property
    def linears(self) -> list[nn.Linear]:
        """All matrices, whether they are stored or not."""
        return [*self.attached.matrices.values(), *self.attached.fixed.values()]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The trainable parameters of a prepared component: latent stacks, floats, and those not stored."""
        found = [stack.latent for stack in self.stacks]
        for name, group in self.floats.items():
            found += [self.deviations[name].latent] if name in self.deviations else group
        return [*found, *self.attached.unstored]

    @property
    def latents(self) -> dict[str, Tensor]:
        """The latent float32 weights of the stored matrices of a prepared component, sharing its memory."""
        by_linear = {
            linear: latent
            for stack in (*self.stacks, *self.fixed_stacks)
            for linear, latent in zip(stack.linears, _latents(stack), strict=True)
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
        for name, group in self.floats.items():
            bits = self.float_bits if name in self.quantized_floats else FLOAT_BITS
            entries.append(Entry(name, tuple(vector(group).shape), bits))
        return entries

    @property
    def quantized_floats(self) -> dict[str, list[nn.Parameter]]:
        """The float parameters that are trained and stored as quantized deviations, by name."""
        if self.float_bits == FLOAT_BITS:
            return {}
        return {name: group for name, group in self.floats.items() if vector(group).numel() >= LEAST}

    def prepare(self, network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Move the weights of all matrices into latent stacks, and quantized floats into latent deviations.

        Args:
            network: the adapted network.
            dtype: dtype that they are used in, unless the method requires float32 for its matrices.
            device: device of the latent weights.
        """
        for name, group in self.quantized_floats.items():
            own = self._quantize_floats.to(device)
            self.deviations[name] = QuantizedFloats(name, group, network, self.seed, own, dtype, device)
        quantizer = self._quantize.to(device) if self._has_codes else None
        dtype = torch.float32 if self.attached.float32 else dtype
        for stacks, matrices in (
            (self.stacks, self.attached.matrices),
            (self.fixed_stacks, self.attached.fixed),
        ):
            if quantizer is None or self.statistics_of == "matrix":
                stacks.extend(stack_by_shape(matrices.values(), quantizer, dtype, device))
                continue
            groups: dict[str, list[nn.Linear]] = {}
            for name, linear in matrices.items():
                groups.setdefault(role_of(name) if self.statistics_of == "role" else "", []).append(linear)
            stacks.extend(JointStack(group, quantizer, dtype, device) for group in groups.values())
        for stack in self.fixed_stacks:
            stack.latent.requires_grad_(False)

    def store(self) -> list[StoredTensor]:
        """Return the tensors that a file holds of a prepared and trained component."""
        stored = []
        self.attached.encode()
        joint = self._jointly_encoded()
        for name, latent in self.latents.items():
            if name in joint:
                stored.append(joint[name])
            elif self._has_codes:
                stored.append(_coded_tensor(name, latent, latent.shape, self._quantize))
            else:
                stored.append(_float_tensor(name, latent))
        stored += [
            StoredTensor(Entry(name, tuple(codes.shape), CODE_BITS), codes=codes.cpu().numpy())
            for name, codes in self.attached.codes.items()
        ]
        for name, group in self.floats.items():
            if name in self.deviations:
                latent = self.deviations[name].latent
                stored.append(_coded_tensor(name, latent, latent[0].shape, self._quantize_floats))
            else:
                stored.append(_float_tensor(name, vector(group)))
        return stored

    def _jointly_encoded(self) -> dict[str, StoredTensor]:
        """Return the stored matrices that are standardized together with others, by name."""
        found: dict[nn.Linear, tuple[Tensor, Tensor, Tensor]] = {}
        for stack in (*self.stacks, *self.fixed_stacks):
            if isinstance(stack, JointStack):
                codes, mean, std = self._quantize.encode(stack.latent)
                found |= {
                    linear: (c, mean, std)
                    for linear, c in zip(stack.linears, stack.split(codes), strict=True)
                }
        return {
            name: _stored(name, *found[linear], self.bits)
            for name, linear in self.matrices.items()
            if linear in found
        }

    @property
    def _has_codes(self) -> bool:
        return self.bits != FLOAT_BITS

    @cached_property
    def _quantize(self) -> FakeQuantize:
        return FakeQuantize(self.quantizer, self.bits)

    @cached_property
    def _quantize_floats(self) -> FakeQuantize:
        return FakeQuantize(self.quantizer, self.float_bits)

    @torch.no_grad()
    def restore(self, stored: Sequence[StoredTensor], where: str) -> None:
        """Fill a component that is not prepared yet with stored tensors.

        Args:
            stored: tensors in the order of the file.
            where: path of the file, for messages.

        Raises:
            UserError: names, shapes or bits differ from those of this component.
        """
        form = FORMS.get(self.compress)
        expected = self.entries if form is None else form.entries(self, stored)
        for entry, tensor in zip(expected, stored, strict=False):
            if entry != tensor.entry:
                raise UserError(f"{where}: holds {tensor.entry} where the model has {entry}")
        if len(expected) != len(stored):
            raise UserError(
                f"{where}: holds {counted(len(stored), 'tensor')} where the model has {len(expected)}"
            )
        if form is not None:
            form.fill(self, stored)
            return
        tensors = iter(stored)
        for linear in self.matrices.values():
            linear.weight.copy_(_decode(next(tensors), lambda: self._quantize))
        for codes in self.attached.codes.values():
            codes.copy_(torch.from_numpy(next(tensors).codes))
        self.attached.decode()
        for name, group in self.floats.items():
            values = _decode(next(tensors), lambda: self._quantize_floats)
            values = vector(group) + values if name in self.quantized_floats else values
            for parameter, piece in zip(group, split(values, group), strict=True):
                parameter.copy_(piece)


def _decode(tensor: StoredTensor, quantizer: Callable[[], FakeQuantize]) -> Tensor:
    if tensor.values is not None:
        return torch.from_numpy(tensor.values)
    mean, std = torch.tensor(tensor.mean), torch.tensor(tensor.std)
    return quantizer().decode(torch.from_numpy(tensor.codes), mean, std)


def _coded_tensor(name: str, latent: Tensor, shape: Sequence[int], quantizer: FakeQuantize) -> StoredTensor:
    codes, mean, std = quantizer.encode(latent)
    return _stored(name, codes.reshape(tuple(shape)), mean, std, quantizer.bits)


def _stored(name: str, codes: Tensor, mean: Tensor, std: Tensor, bits: int) -> StoredTensor:
    entry = Entry(name, tuple(codes.shape), bits)
    return StoredTensor(entry, codes=codes.cpu().numpy(), mean=mean.item(), std=std.item())


def _latents(stack: LatentStack | JointStack) -> Sequence[Tensor]:
    latent = stack.latent.detach()
    return stack.split(latent) if isinstance(stack, JointStack) else [*latent]


def _float_tensor(name: str, value: Tensor) -> StoredTensor:
    return StoredTensor(Entry(name, tuple(value.shape), FLOAT_BITS), values=value.detach().cpu().numpy())
