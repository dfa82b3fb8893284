"""The places of a backbone an adapter may ask for, by role and never by model class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.errors import UserError


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


def widths(slot: Slot) -> tuple[int, int]:
    """Inputs and outputs of the linear in a slot, as the backbone has it."""
    linear = slot.get()
    assert isinstance(linear, nn.Linear)
    return linear.in_features, linear.out_features


class FirstToken(nn.Module):
    """A module of the last block where the head reads the first token alone: it works on that one.

    Its residual connection adds the result to all tokens; that is right for the first, and nobody reads the
    others.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim); result (batch, 1, dim)."""
        result: Tensor = self.module(x[:, :1])
        return result


class _Passing:
    """What the beginning of a branch leaves for its end, within one pass through the network."""

    seen: tuple[Tensor, Tensor] | None = None


class _Beginning(nn.Module):
    """The first module of a branch; what goes in and what comes out is kept for the end."""

    def __init__(self, module: nn.Module, passing: _Passing) -> None:
        super().__init__()
        self.module = module
        self.passing = passing

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.module(x)
        self.passing.seen = x, z
        return z


class _End(nn.Module):
    """The last module of a branch, and after it what has joined the branch."""

    def __init__(self, module: nn.Module, passing: _Passing, joined: nn.Module, channels_first: bool) -> None:
        super().__init__()
        self.module = module
        self.passing = passing
        self.joined = joined
        self.channels_first = channels_first

    def forward(self, y: Tensor) -> Tensor:
        d: Tensor = self.module(y)
        assert self.passing.seen is not None
        (x, z), self.passing.seen = self.passing.seen, None
        if not self.channels_first:
            joined: Tensor = self.joined(x, z, d)
            return joined
        last = (value.permute(0, 2, 3, 1) for value in (x, z, d))
        return self.joined(*last).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Branch:
    """A branch of a block: fed by the residual stream x, which the block adds to what the branch gives, d.

    Attributes:
        first: takes x and gives z: the layer norm of a transformer, the depthwise convolution of ConvNeXt.
        last: gives d: drop path, after layer scale where there is one.
        channels_first: whether these are (batch, dim, height, width), not (batch, ..., dim).
    """

    first: Slot
    last: Slot
    channels_first: bool = False

    def join(self, module: nn.Module) -> None:
        """From now on the branch gives module(x, z, d), all of them (batch, ..., dim).

        The family's own forward stays as it is. Where the head reads the first token of the last block alone
        (`Sites.drop_unread`), d may be of one token and x and z of all: what is said of the first counts.
        """
        passing = _Passing()
        self.first.set(_Beginning(self.first.get(), passing))
        self.last.set(_End(self.last.get(), passing, module, self.channels_first))


@dataclass(frozen=True)
class TokenGrid:
    """Where the stream's tokens are in the image.

    Attributes:
        prefix: tokens before the patches, which belong to no place.
        grid: rows and columns of patches; None where the stream is (batch, rows, columns, dim) itself.
    """

    prefix: int
    grid: tuple[int, int] | None

    def split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Tokens before the patches (batch, prefix, dim) or None; patches (batch, rows, columns, dim)."""
        if self.grid is None:
            return None, x
        return x[:, : self.prefix], x[:, self.prefix :].unflatten(1, self.grid)

    def join(self, prefix: Tensor | None, patches: Tensor) -> Tensor:
        """The inverse of `split`."""
        return patches if prefix is None else torch.cat([prefix, patches.flatten(1, 2)], 1)


@dataclass(frozen=True)
class Operation:
    """A linear, convolution or norm of the backbone.

    Attributes:
        channels: width of what it gives.
        channels_first: whether that is (batch, channels, height, width), not (batch, ..., channels).
    """

    slot: Slot
    channels: int
    channels_first: bool


@dataclass(frozen=True)
class BlockSites:
    """The sites of one block.

    Attributes:
        whole: the block itself.
        dim: width of the residual stream, which may differ from block to block.
        linears: nn.Linear slots under those of the roles qkv, proj, fc1, fc2 that the block has; qkv maps
            dim -> (q, k, v).
        branches: those of the roles attention, mlp that the block has; a ConvNeXt block is one branch, mlp.
    """

    whole: Slot
    dim: int
    linears: dict[str, Slot]
    branches: dict[str, Branch]

    def linear(self, role: str) -> Slot:
        """The slot of a linear.

        Raises:
            UserError: the block has no linear in this role.
        """
        if role not in self.linears:
            raise _missing("linear", role, self.linears)
        return self.linears[role]

    def branch(self, role: str) -> Branch:
        """A branch.

        Raises:
            UserError: the block has no branch in this role.
        """
        if role not in self.branches:
            raise _missing("branch", role, self.branches)
        return self.branches[role]


def _missing(what: str, role: str, found: Iterable[str]) -> UserError:
    return UserError(
        f"this adapter needs a {what} {role!r} in every block of the backbone, whose blocks have "
        f"{', '.join(found) or f'no {what}s'}: choose another adapter or backbone"
    )


@dataclass(frozen=True)
class Sites:
    """All sites of a backbone.

    Attributes:
        blocks: from input to output.
        parameters: the backbone's own, frozen, by timm's names and in timm's order.
        head: the classifier's place.
        features: number of features that arrive there.
        operations: every linear, convolution and norm, in the order in which they are built, but for the
            reductions of Swin's patch merging, which count with their norms.
        layout: of the stream's tokens; the same in all blocks but for the size of the grid.
        first_token: whether the head reads the first token of the last block alone.
    """

    blocks: list[BlockSites]
    parameters: dict[str, nn.Parameter]
    head: Slot
    features: int
    operations: list[Operation]
    layout: TokenGrid
    first_token: bool = False

    def drop_unread(self) -> None:
        """Spare the last block's work on tokens that nobody reads; for adapters that keep tokens apart."""
        if self.first_token:
            last = self.blocks[-1]
            for slot in (last.linear("proj"), last.branch("mlp").first):
                slot.set(FirstToken(slot.get()))

    def unfreeze(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The named parameters of the backbone, from now on with gradients."""
        chosen = [self.parameters[name] for name in names]
        for parameter in chosen:
            parameter.requires_grad_()
        return chosen
