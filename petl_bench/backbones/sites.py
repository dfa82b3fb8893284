"""Sites of a backbone: the places at which adapters are attached, by role and never by model class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl_bench.errors import UserError


@dataclass(frozen=True)
class Slot:
    """A replaceable submodule.

    Attributes:
        parent: module that holds the submodule.
        name: attribute of the parent.
    """

    parent: nn.Module
    name: str

    def get(self) -> nn.Module:
        """Return the submodule."""
        module = getattr(self.parent, self.name)
        assert isinstance(module, nn.Module)
        return module

    def set(self, module: nn.Module) -> None:
        """Replace the submodule."""
        setattr(self.parent, self.name, module)


@dataclass(frozen=True)
class SharedSlot(Slot):
    """A slot of one submodule that its parent applies in two places.

    Attributes:
        twin: second attribute of the parent, which receives the same module.
    """

    twin: str

    def set(self, module: nn.Module) -> None:
        """Replace the submodule in both places."""
        super().set(module)
        setattr(self.parent, self.twin, module)


def widths(slot: Slot) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of the linear in a slot, before an adapter replaces it."""
    linear = slot.get()
    assert isinstance(linear, nn.Linear)
    return linear.in_features, linear.out_features


class FirstToken(nn.Module):
    """A module of the last block that is applied to the first token only, because the head reads no other.

    The residual connection around it adds the result to all tokens. The sum is correct for the first token;
    the others are not read.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return the result (batch, 1, dim) for tokens `x` (batch, tokens, dim)."""
        result: Tensor = self.module(x[:, :1])
        return result


class _BranchInputs:
    """Input and output of the first module of a branch, kept until the last module of the same pass."""

    values: tuple[Tensor, Tensor] | None = None


class _First(nn.Module):
    """The first module of a branch, which keeps its input and its output for the last module."""

    def __init__(self, module: nn.Module, inputs: _BranchInputs) -> None:
        super().__init__()
        self.module = module
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.module(x)
        self.inputs.values = x, z
        return z


class _Last(nn.Module):
    """The last module of a branch, followed by the module that has joined the branch."""

    def __init__(
        self, module: nn.Module, inputs: _BranchInputs, joined: nn.Module, channels_first: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.inputs = inputs
        self.joined = joined
        self.channels_first = channels_first

    def forward(self, y: Tensor) -> Tensor:
        d: Tensor = self.module(y)
        assert self.inputs.values is not None
        (x, z), self.inputs.values = self.inputs.values, None
        if not self.channels_first:
            joined: Tensor = self.joined(x, z, d)
            return joined
        channels_last = (value.permute(0, 2, 3, 1) for value in (x, z, d))
        return self.joined(*channels_last).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Branch:
    """A residual branch of a block: it computes d from the residual stream x, and the block adds both.

    Attributes:
        first: module from x to z: the layer norm of a transformer, the depthwise convolution of ConvNeXt.
        last: module that returns d: drop path, after layer scale where there is one.
        channels_first: whether x, z and d are (batch, dim, height, width) instead of (batch, ..., dim).
    """

    first: Slot
    last: Slot
    channels_first: bool = False

    def join(self, module: nn.Module) -> None:
        """Replace the result d of the branch by module(x, z, d), all of them (batch, ..., dim).

        The forward functions of the family's own modules are not changed. Where the head reads only the first
        token of the last block (`Sites.drop_unread`), d may have one token while x and z have all; then only
        the result for the first token matters.
        """
        inputs = _BranchInputs()
        self.first.set(_First(self.first.get(), inputs))
        self.last.set(_Last(self.last.get(), inputs, module, self.channels_first))


@dataclass(frozen=True)
class TokenGrid:
    """Arrangement of the tokens of the residual stream in the image.

    Attributes:
        prefix: number of tokens before the patches, which have no position in the image.
        grid: rows and columns of patches; None where the stream itself is (batch, rows, columns, dim).
    """

    prefix: int
    grid: tuple[int, int] | None

    def split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Split tokens `x` into prefix and patches.

        Args:
            x: (batch, tokens, dim), or (batch, rows, columns, dim) where `grid` is None.

        Returns:
            Prefix (batch, prefix, dim) or None, and patches (batch, rows, columns, dim).
        """
        if self.grid is None:
            return None, x
        prefix, patches = x.split([self.prefix, x.shape[1] - self.prefix], 1)
        return prefix, patches.unflatten(1, self.grid)

    def join(self, prefix: Tensor | None, patches: Tensor) -> Tensor:
        """Return the tokens that `split` has split, in their original shape."""
        return patches if prefix is None else torch.cat([prefix, patches.flatten(1, 2)], 1)


@dataclass(frozen=True)
class Operation:
    """A linear, convolution or norm of the backbone.

    Attributes:
        slot: slot of the operation.
        channels: number of output channels.
        channels_first: whether the output is (batch, channels, height, width), not (batch, ..., channels).
    """

    slot: Slot
    channels: int
    channels_first: bool


@dataclass(frozen=True)
class BlockSites:
    """The sites of one block.

    Attributes:
        whole: slot of the block itself.
        dim: width of the residual stream, which may differ between blocks.
        linears: slots of linears by role: those of qkv, proj, fc1 and fc2 that the block has; qkv maps dim to
            (q, k, v).
        branches: branches by role: those of attention and mlp that the block has; a ConvNeXt block has mlp.
    """

    whole: Slot
    dim: int
    linears: dict[str, Slot]
    branches: dict[str, Branch]

    def linear(self, role: str) -> Slot:
        """Return the slot of the linear with a role.

        Raises:
            UserError: the block has no linear with this role.
        """
        if role not in self.linears:
            raise _missing("linear", role, self.linears)
        return self.linears[role]

    def branch(self, role: str) -> Branch:
        """Return the branch with a role.

        Raises:
            UserError: the block has no branch with this role.
        """
        if role not in self.branches:
            raise _missing("branch", role, self.branches)
        return self.branches[role]


_PLURALS = {"linear": "linears", "branch": "branches"}


def _missing(what: str, role: str, found: Iterable[str]) -> UserError:
    return UserError(
        f"this adapter needs a {what} {role!r} in every block of the backbone, whose blocks have "
        f"{', '.join(found) or f'no {_PLURALS[what]}'}: choose another adapter or backbone"
    )


@dataclass(frozen=True)
class Sites:
    """All sites of a backbone.

    Attributes:
        blocks: sites of the blocks, from input to output.
        parameters: frozen parameters of the backbone by name, with timm's names and in timm's order.
        head: slot of the classifier.
        features: number of input features of the classifier.
        operations: every linear, convolution and norm in order of construction, except for the linears of
            Swin's patch merging, which form one operation with their norms.
        arrangement: arrangement of the tokens, the same in all blocks except for the size of the grid; None
            where it is not known.
        first_token: whether the head reads only the first token of the last block.
        fixed_tokens: whether attention knows positions by the place in the sequence, so that no tokens can be
            added.
    """

    blocks: list[BlockSites]
    parameters: dict[str, nn.Parameter]
    head: Slot
    features: int
    operations: list[Operation]
    arrangement: TokenGrid | None
    first_token: bool = False
    fixed_tokens: bool = False

    @property
    def layout(self) -> TokenGrid:
        """Return the arrangement of the tokens.

        Raises:
            UserError: it is not known.
        """
        if self.arrangement is None:
            raise UserError(
                "this adapter needs the place of each token in the image, which this backbone does not tell: "
                "choose another adapter or backbone"
            )
        return self.arrangement

    def drop_unread(self) -> None:
        """Skip the last block's work on tokens that the head does not read; for tokenwise adapters."""
        if self.first_token:
            last = self.blocks[-1]
            for slot in (last.linear("proj"), last.branch("mlp").first):
                slot.set(FirstToken(slot.get()))

    def unfreeze(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Make parameters of the backbone trainable and return them, in the order of `names`."""
        chosen = [self.parameters[name] for name in names]
        for parameter in chosen:
            parameter.requires_grad_()
        return chosen
