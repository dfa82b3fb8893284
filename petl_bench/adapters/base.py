"""What every adapter method is: a config dataclass and an `attach` function under one name."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError
from petl_bench.registry import Registry


@dataclass(frozen=True)
class Shape:
    """The settings that all adapter methods share.

    Attributes:
        hidden: number of hidden units, the rank of the update.
        scale: fixed factor on the adapter's output.
        quantized: whether the matrices are trained below 32 bits; initializations depend on it.
        seed: of the initialization.
        rounded: a matrix -> what is left of it at the run's bits; itself at 32.
    """

    hidden: int
    scale: float
    quantized: bool
    seed: int = 0
    rounded: Callable[[Tensor], Tensor] = lambda matrix: matrix


class Calibration(Protocol):
    """What a method may do with the training images before the training."""

    network: nn.Module

    def observe(self) -> None:
        """Pass every training image through the network once, without gradients, as for evaluation."""

    def fit(self, parameters: Sequence[nn.Parameter], epochs: int) -> None:
        """Train these and the head by the run's recipe over other epochs; the head is put back after."""


@dataclass(frozen=True)
class Attached:
    """The parts of an attached adapter, in the order in which they are stored.

    Attributes:
        matrices: bias-free linears that may be quantized, as "BLOCK.ROLE"; trained.
        fixed: the same, but stored without being trained.
        codes: tensors of uint8 that are stored as they are; whoever fills them does so in place.
        floats: lists of parameters that are kept in float32; each list is stored as one vector.
        initializers: initializers of matrices that differ from `initialization.linear`.
        spare: names of matrices that are trained, but neither stored nor used in evaluation.
        float32: whether the linears compute in float32 in every precision, since what counts of them is how
            little they move; the method casts what it makes of them.
        each_pass: called before each pass through the network, with whether it is in training.
        calibrate: called once before the training; a reloaded model has its results from the file.
        decode: called once `codes` have been filled from a file.
        consistency: weight of the symmetric KL divergence between two passes over one batch; 0: one pass.
    """

    matrices: dict[str, nn.Linear] = field(default_factory=dict)
    fixed: dict[str, nn.Linear] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    floats: dict[str, list[nn.Parameter]] = field(default_factory=dict)
    initializers: dict[str, initialization.Initializer] = field(default_factory=dict)
    spare: set[str] = field(default_factory=set)
    float32: bool = False
    each_pass: Callable[[bool], None] | None = None
    calibrate: Callable[[Calibration], None] | None = None
    decode: Callable[[], None] = lambda: None
    consistency: float = 0.0


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


Attach = Callable[[Sites, Shape, Any], Attached]
"""Joins a method to the sites. It asks for shapes of the backbone's weights: a start that depends on their
values is computed in `Attached.initializers`."""

GROUPS = ("probe", "selective", "additive", "low-rank", "reparameterized", "prompt")
"""Kinds of methods, as `petl-bench ls adapters` has them."""


@dataclass(frozen=True)
class Method:
    """An adapter method.

    Attributes:
        config: dataclass of its own settings.
        group: one of GROUPS.
        tokenwise: whether what it does to a token depends on no other token, so that the last block may leave
            out tokens that nobody reads.
    """

    config: type
    attach: Attach
    group: str
    tokenwise: bool = False


ADAPTERS: Registry[Method] = Registry("adapter")


def adapter(name: str, config: type, group: str, tokenwise: bool = False) -> Callable[[Attach], Attach]:
    """Decorator that registers an `attach` function with the dataclass of its own settings; see Method."""
    assert group in GROUPS

    def register(attach: Attach) -> Attach:
        ADAPTERS.register(name)(Method(config, attach, group, tokenwise))
        return attach

    return register


def declare(name: str, settings: Mapping[str, Any], sites: Sites, shape: Shape) -> Attached:
    """`attach`, but for the values that matrices start from: it does on the meta device, too.

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
    return attached


def attach(name: str, settings: Mapping[str, Any], sites: Sites, shape: Shape) -> Attached:
    """Build adapter `name` into the backbone that `sites` belong to.

    Raises:
        UserError: as `declare`.
    """
    attached = declare(name, settings, sites, shape)
    for role, matrix in (attached.matrices | attached.fixed).items():
        start = attached.initializers.get(role, initialization.linear)
        with torch.no_grad():
            size = (matrix.out_features, matrix.in_features)
            matrix.weight.copy_(torch.from_numpy(start(shape.seed, f"adapter.{role}", size)))
    return attached
