"""The places of a backbone an adapter may ask for, by role and never by model class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Slot:
    """One replaceable submodule: the attribute `name` of `parent`."""

    parent: nn.Module
    name: str

    def get(self) -> nn.Module:
        module = getattr(self.parent, self.name)
        assert isinstance(module, nn.Module)
        return module

    def set(self, module: nn.Module) -> None:
        setattr(self.parent, self.name, module)


@dataclass(frozen=True)
class Branch:
    """A residual branch x -> drop_path(layer_scale(module(norm(x)))), fed by the residual stream."""

    norm: Slot
    module: Slot
    layer_scale: Slot
    drop_path: Slot

    def wrap(self, make: Callable[[nn.Module], nn.Module]) -> None:
        """Put `make(branch)` where the branch stood; it sees the residual stream, not normalized.

        The family's own forward stays as it is: it runs the new module in the place of `module` and
        identities in the places of the other three.
        """
        parts = [self.norm, self.module, self.layer_scale, self.drop_path]
        branch = nn.Sequential(*(part.get() for part in parts))
        for part in parts:
            part.set(nn.Identity())
        self.module.set(make(branch))


@dataclass(frozen=True)
class BlockSites:
    """The sites of one transformer block.

    Attributes:
        dim: width of the residual stream.
        linears: nn.Linear slots under the roles qkv, proj, fc1, fc2; qkv maps dim -> (q, k, v).
        mlp: the MLP branch.
    """

    dim: int
    linears: dict[str, Slot]
    mlp: Branch


@dataclass(frozen=True)
class Sites:
    """All sites of a backbone: its blocks from input to output, and the classifier's place."""

    blocks: list[BlockSites]
    head: Slot
    features: int
