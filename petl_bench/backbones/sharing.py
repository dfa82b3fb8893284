"""One backbone in memory for many models: copies of its modules that share its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from petl_bench.backbones import families
from petl_bench.backbones.precision import COMPUTE
from petl_bench.backbones.sites import Sites
from petl_bench.types import BackboneSpec


@dataclass(frozen=True)
class SharedCopy:
    """The modules of a resident backbone for one model, whose tensors are still those of the backbone.

    Attributes:
        network: the copied modules, on the CPU and in float32.
        sites: sites of the copy.
        placed: by the id of a parameter or buffer of the copy, this tensor, and that which takes its place in
            the end.
    """

    network: nn.Module
    sites: Sites
    placed: dict[int, tuple[Tensor, Tensor]]

    def own(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give parameters memory of their own, since a file changes them."""
        for parameter in parameters:
            if self.placed.pop(id(parameter), None) is not None:
                parameter.data = parameter.data.clone()

    def place(self) -> None:
        """Replace all tensors that are still those of the backbone by those on its device, in its dtype."""
        for module in self.network.modules():
            for parameter in module.parameters(recurse=False):
                if id(parameter) in self.placed:
                    parameter.data = self.placed[id(parameter)][1]
            for name, buffer in module.named_buffers(recurse=False):
                if id(buffer) in self.placed:
                    setattr(module, name, self.placed[id(buffer)][1])


class Resident:
    """A backbone that stays in memory, on the CPU and, if that is another one, on the device of its models.

    Args:
        spec: the backbone.
        precision: precision of the models. Those in int8 share no memory on the device.
        device: device of the models.

    Raises:
        UserError: the backbone cannot be built.
    """

    def __init__(self, spec: BackboneSpec, precision: str, device: torch.device) -> None:
        self.spec = spec
        self.network, _ = families.build(spec)
        self._is_plain = all(map(_is_plain, self.network.modules()))
        dtype = COMPUTE[precision]
        self._placed: dict[int, Tensor] = {}
        if precision != "int8":  # whose codes are computed from the float32 weights
            for tensor in (*self.network.parameters(), *self.network.buffers()):
                kind = dtype if tensor.is_floating_point() else tensor.dtype
                self._placed[id(tensor)] = tensor.detach().to(device, kind)

    def copy(self) -> SharedCopy:
        """Return a copy of the modules for one model; no tensor is copied."""
        memo: dict[int, Any] = {}
        placed: dict[int, tuple[Tensor, Tensor]] = {}
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            shared = tensor
            if isinstance(tensor, nn.Parameter):
                shared = nn.Parameter(tensor.detach(), requires_grad=False)
            memo[id(tensor)] = shared
            if id(tensor) in self._placed:
                placed[id(shared)] = shared, self._placed[id(tensor)]
        network = _copied(self.network, memo) if self._is_plain else copy.deepcopy(self.network, memo)
        return SharedCopy(network, families.sites_of(network, self.spec), placed)


_HELD = ("_parameters", "_buffers", "_modules")
"""Attributes of a module that hold its tensors and submodules."""


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module holds tensors and modules in no other places, and no methods of itself."""
    others = [value for name, value in vars(module).items() if name not in _HELD]
    inside = [one for value in others if isinstance(value, list | tuple | set) for one in value]
    inside += [one for value in others if isinstance(value, dict) for one in value.values()]
    return not any(isinstance(value, nn.Module | Tensor | MethodType) for value in (*others, *inside))


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a tree of plain modules; `copy.deepcopy` takes twenty times as long.

    Args:
        memo: copies of parameters and buffers by the ids of the originals; copied modules are added.
    """
    if id(module) in memo:
        found: nn.Module = memo[id(module)]
        return found
    memo[id(module)] = new = type(module).__new__(type(module))
    values = vars(module)
    vars(new).update({n: v.copy() if isinstance(v, dict | list | set) else v for n, v in values.items()})
    for kind in _HELD[:2]:
        held = {name: None if v is None else memo[id(v)] for name, v in values[kind].items()}
        vars(new)[kind] = held
    vars(new)["_modules"] = {
        name: None if child is None else _copied(child, memo) for name, child in module._modules.items()
    }
    return new
