"""What every adapter method is: a config dataclass and an `attach` function under one name."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from petl_bench import initial
from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.sites import Sites


@dataclass(frozen=True)
class Shape:
    """The settings that all adapter methods share.

    Attributes:
        hidden: number of hidden units, the rank of the update.
        scale: fixed factor on the adapter's output.
        quantized: whether the matrices are trained below 32 bits; initializations depend on it.
        seed: of the initialization.
    """

    hidden: int
    scale: float
    quantized: bool
    seed: int = 0


@dataclass(frozen=True)
class Attached:
    """The trainable parts of an attached adapter, in the order in which they are stored.

    Attributes:
        matrices: bias-free linears that may be quantized, as "BLOCK.ROLE".
        floats: lists of parameters that are kept in float32; each list is stored as one vector.
        starts: initializations of matrices that start otherwise than `initial.linear`.
    """

    matrices: dict[str, nn.Linear] = field(default_factory=dict)
    floats: dict[str, list[nn.Parameter]] = field(default_factory=dict)
    starts: dict[str, initial.Start] = field(default_factory=dict)


class Mergeable(nn.Module, ABC):
    """A module that can be replaced by a plain one of the same function, once training is over."""

    @abstractmethod
    def merged(self) -> nn.Module:
        """The plain module; equal but for rounding."""


def merge(network: nn.Module) -> None:
    """Replace what can be."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Mergeable):
                setattr(parent, name, child.merged())


@dataclass(frozen=True)
class Method:
    """An adapter method.

    Attributes:
        config: dataclass of its own settings.
        tokenwise: whether what it does to a token depends on no other token, so that the last block may leave
            out tokens that nobody reads.
    """

    config: type
    attach: Callable[[Sites, Shape, Any], Attached]
    tokenwise: bool = False


ADAPTERS: Registry[Method] = Registry("adapter")


def adapter(
    name: str, config: type, tokenwise: bool = False
) -> Callable[[Callable[[Sites, Shape, Any], Attached]], Method]:
    """Decorator that registers an `attach` function with the dataclass of its own settings; see Method."""

    def register(attach: Callable[[Sites, Shape, Any], Attached]) -> Method:
        return ADAPTERS.register(name)(Method(config, attach, tokenwise))

    return register


def attach(name: str, settings: Mapping[str, Any], sites: Sites, shape: Shape) -> Attached:
    """Build adapter `name` into the backbone that `sites` belong to.

    Raises:
        UserError: unknown adapter, settings it does not have or refuses, or sites the backbone does not have.
    """
    method = ADAPTERS.get(name)
    known = {f.name for f in dataclasses.fields(method.config)}
    foreign = sorted(settings.keys() - known)
    if foreign:
        raise UserError(f"adapter {name} has no setting {foreign[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        attached = method.attach(sites, shape, method.config(**settings))
    except (ValueError, TypeError) as error:
        raise UserError(f"adapter {name} refuses its settings {dict(settings)}: {error}") from error
    if method.tokenwise:
        sites.drop_unread()
    for role, matrix in attached.matrices.items():
        start = attached.starts.get(role, initial.linear)
        with torch.no_grad():
            size = (matrix.out_features, matrix.in_features)
            matrix.weight.copy_(torch.from_numpy(start(shape.seed, f"adapter.{role}", size)))
    return attached
