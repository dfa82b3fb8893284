"""The interface of adapter methods: a dataclass of settings and an `attach` function, registered by name.

An `attach` function replaces submodules of the frozen backbone and declares what it has added as matrices,
which a quantizer may round to a few bits, and floats, which it rounds with `float_bits` only. Training,
packing and the count of bytes know only this declaration (`Attached`), so that every method can be trained at
every bit-width.
"""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from petl_bench import initialization, plugins
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError
from petl_bench.registry import Registry
from petl_bench.types import MethodFacts


@dataclass(frozen=True)
class Shape:
    """The settings that all adapter methods share.

    Attributes:
        hidden: number of hidden units, which is the rank of a low-rank update.
        scale: fixed factor on the adapter's output.
        quantized: whether the matrices are trained below 32 bits; some initializers depend on it.
        seed: seed of the initialization.
        rounded: function of a matrix that returns its values after quantization at the bits of the run; at 32
            bits it returns the matrix unchanged.
        start: bound of the uniform initialization of pairs of matrices; 0: the method's own initialization.
    """

    hidden: int
    scale: float
    quantized: bool
    seed: int = 0
    rounded: Callable[[Tensor], Tensor] = lambda matrix: matrix
    start: float = 0.0


class Calibration(Protocol):
    """Access to the training images before training starts, for methods that depend on them.

    Attributes:
        network: the backbone with the attached adapter and head.
    """

    network: nn.Module

    def observe(self) -> None:
        """Pass every training image through the network once, in evaluation mode and without gradients."""

    def fit(self, parameters: Sequence[nn.Parameter], epochs: int) -> None:
        """Train `parameters` and the head by the recipe of the run; the head is restored afterwards.

        Args:
            parameters: parameters to train.
            epochs: number of epochs, in place of that of the run.
        """


@dataclass(frozen=True)
class Replacement:
    """A network in place of the backbone, for methods that use nothing of it.

    Attributes:
        network: images (batch, 3, S, S) -> output of its submodule `head`, whose input are the features.
        features: number of features.
    """

    network: nn.Module
    features: int


@dataclass(frozen=True)
class Attached:
    """The tensors of an attached adapter, in the order in which they are stored, and its hooks.

    Attributes:
        matrices: trainable bias-free linears that may be quantized, by names such as "BLOCK.ROLE.down".
        fixed: bias-free linears that are quantized and stored like `matrices`, but not trained.
        codes: uint8 tensors that are stored unchanged; they must be filled in place.
        floats: lists of trainable parameters at their initial values; each list is stored as one vector.
        initializers: initializers of the matrices that do not use `initialization.linear`, by name.
        spare: names of matrices that are trained, but neither stored nor used in evaluation.
        unstored: float32 parameters that are trained, but neither quantized nor stored.
        float32: whether the linears keep float32 weights in every precision. Methods need it whose update is
            a small difference of large numbers; they cast the result to the dtype of the activations.
        each_pass: function that is called before each pass through the network with True in training mode
            and False in evaluation mode.
        calibrate: function that is called once before training. A reloaded model does not call it; the file
            holds its results.
        encode: function that is called before `codes` are stored, for methods whose training decides them.
        decode: function that is called after `codes` have been read from a file.
        replacement: network that the model consists of instead of the backbone; None: the backbone.
        consistency: weight of the symmetric KL divergence between the outputs of two passes over each
            training batch; with 0 there is one pass.
    """

    matrices: dict[str, nn.Linear] = field(default_factory=dict)
    fixed: dict[str, nn.Linear] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    floats: dict[str, list[nn.Parameter]] = field(default_factory=dict)
    initializers: dict[str, initialization.Initializer] = field(default_factory=dict)
    spare: set[str] = field(default_factory=set)
    unstored: list[nn.Parameter] = field(default_factory=list)
    float32: bool = False
    each_pass: Callable[[bool], None] | None = None
    calibrate: Callable[[Calibration], None] | None = None
    encode: Callable[[], None] = lambda: None
    decode: Callable[[], None] = lambda: None
    replacement: Replacement | None = None
    consistency: float = 0.0


class Mergeable(nn.Module, ABC):
    """A module that can be replaced by an equivalent module of the backbone after training."""

    @abstractmethod
    def merged(self) -> nn.Module:
        """Return a module without adapter that computes the same function up to floating-point rounding."""


def merge(network: nn.Module) -> None:
    """Replace every `Mergeable` submodule of `network` by its merged form, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Mergeable):
                setattr(parent, name, child.merged())


Attach = Callable[[Sites, Shape, Any], Attached]
"""Function of the sites of a backbone, the shared settings and the method's own settings that builds the
adapter into the backbone. It may run on the meta device, so it must rely on the shapes of the backbone's
weights only; initial values that depend on the weights themselves belong in `Attached.initializers`."""


@dataclass(frozen=True, kw_only=True)
class Method(MethodFacts):
    """An adapter method, registered.

    Attributes:
        config: dataclass of its own settings.
        attach: function that builds the adapter into a backbone.
    """

    config: type
    attach: Attach


ADAPTERS: Registry[Method] = Registry("adapter", "ADAPTERS")


def adapter(name: str, *, config: type, **facts: Any) -> Callable[[Attach], Attach]:
    """Return a decorator that registers an `attach` function as an adapter method.

    All arguments must be literals, and `config` a dataclass of the same file whose defaults are literals,
    with one sentence of documentation under each field: petl_bench.types.method_facts parses the source.

    Args:
        name: name of the method in overrides, such as adapter=NAME.
        config: dataclass of the method's own settings.
        facts: `description`, `group`, and where they apply `tokenwise`, `unused` and `nested`; see
            `petl_bench.types.MethodFacts`.
    """

    def register(attach: Attach) -> Attach:
        ADAPTERS.register(name)(Method(config=config, attach=attach, **facts))
        return attach

    return register


def declare(name: str, settings: Mapping[str, Any], sites: Sites, shape: Shape) -> Attached:
    """Build adapter `name` into a backbone without initializing its matrices.

    The backbone may be on the meta device.

    Args:
        name: registered name of the method.
        settings: settings of the method that differ from the defaults of its dataclass.
        sites: sites of the backbone.
        shape: settings that all methods share.

    Returns:
        The declaration of what was attached.

    Raises:
        UserError: the adapter or one of the settings does not exist, a value is out of range, or the backbone
            lacks a site that the adapter needs.
    """
    method = ADAPTERS.get(name)
    known = {f.name for f in dataclasses.fields(method.config)}
    foreign = sorted(settings.keys() - known)
    if foreign:
        raise UserError(f"adapter {name} has no setting {foreign[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the results of commands
            attached = method.attach(sites, shape, method.config(**settings))
    except (ValueError, TypeError) as error:
        where = f"{place}: " if (place := plugins.origin(error)) else ""
        raise UserError(f"{where}adapter {name} refuses its settings {dict(settings)}: {error}") from error
    if not isinstance(attached, Attached):
        raise UserError(f"adapter {name}: its function must return an Attached, not {attached!r}")
    if method.tokenwise:
        sites.drop_unread()
    return attached


_PARTNERS = {"down": "up", "up": "down", "left": "right", "right": "left"}
"""Last words of the names of the two matrices of a pair."""


def paired(attached: Attached) -> set[str]:
    """Return the names of the trained matrices whose product in pairs is the update of a method.

    They are NAME.down and NAME.up, or NAME.left and NAME.right, with or without a number behind. Methods that
    subtract an initial product (`Attached.float32`) have no pairs of this kind.
    """

    def partner(name: str) -> str:
        words = name.split(".")
        place = len(words) - 2 if words[-1].isdecimal() else len(words) - 1
        words[place] = _PARTNERS.get(words[place], "")
        return ".".join(words)

    names = set() if attached.float32 else {*attached.matrices}
    return {name for name in names if partner(name) in names}


def attach(name: str, settings: Mapping[str, Any], sites: Sites, shape: Shape) -> Attached:
    """Build adapter `name` into the backbone that `sites` belong to, and initialize its matrices.

    Args:
        name: registered name of the method.
        settings: settings of the method that differ from the defaults of its dataclass.
        sites: sites of the backbone.
        shape: settings that all methods share.

    Returns:
        The declaration of what was attached.

    Raises:
        UserError: for the reasons given at `declare`, or `shape.start` is given and there are no pairs.
    """
    attached = declare(name, settings, sites, shape)
    pairs = paired(attached) if shape.start else set()
    if shape.start and not pairs:
        raise UserError(f"start={shape.start:g}: adapter {name} has no pair of matrices that starts at zero")
    for role, matrix in (attached.matrices | attached.fixed).items():
        start = attached.initializers.get(role, initialization.linear)
        if role in pairs:
            start = initialization.uniform(shape.start)
        with torch.no_grad():
            size = (matrix.out_features, matrix.in_features)
            matrix.weight.copy_(torch.from_numpy(start(shape.seed, f"adapter.{role}", size)))
    return attached
