"""The places of a backbone an adapter may ask for, by role and never by model class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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


class Permuted(nn.Module):
    """A module between two layouts: x -> module(x with its dimensions in `order`), put back in place."""

    def __init__(self, module: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.order = order
        self.inverse = tuple(order.index(dimension) for dimension in range(len(order)))

    def forward(self, x: Tensor) -> Tensor:
        """x and result of the same shape and layout."""
        result: Tensor = self.module(x.permute(self.order))
        return result.permute(self.inverse)


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


_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Branch:
    """A branch fed by the residual stream: the modules in `parts`, one after another.

    In a transformer block these are norm, MLP, layer scale (where there is one) and drop path, and the
    block adds the stream to what they give. A ConvNeXt block is one part, which adds the stream itself.

    Attributes:
        parts: the slots in the order in which they run.
        channels_first: whether the stream is (batch, dim, height, width), not (batch, ..., dim).
    """

    parts: tuple[Slot, ...]
    channels_first: bool = False

    def wrap(self, make: Callable[[nn.Module], nn.Module]) -> None:
        """Put `make(branch)` where the branch stood; both work on (batch, ..., dim), not normalized.

        The family's own forward stays as it is: it runs the new module in the place of the first part and
        identities in the places of the others.
        """
        branch: nn.Module = nn.Sequential(*(part.get() for part in self.parts))
        for part in self.parts:
            part.set(nn.Identity())
        if self.channels_first:
            made: nn.Module = Permuted(make(Permuted(branch, _CHANNELS_FIRST)), _CHANNELS_LAST)
        else:
            made = make(branch)
        self.parts[0].set(made)


@dataclass(frozen=True)
class BlockSites:
    """The sites of one block.

    Attributes:
        dim: width of the residual stream, which may differ from block to block.
        linears: nn.Linear slots under those of the roles qkv, proj, fc1, fc2 that the block has; qkv maps
            dim -> (q, k, v).
        mlp: the MLP branch; the whole block where the block is one branch.
    """

    dim: int
    linears: dict[str, Slot]
    mlp: Branch

    def linear(self, role: str) -> Slot:
        """The slot of a linear.

        Raises:
            UserError: the block has no linear in this role.
        """
        if role not in self.linears:
            raise UserError(
                f"this adapter needs a linear {role!r} in every block of the backbone, whose blocks have "
                f"{', '.join(self.linears) or 'no linears'}: choose another adapter or backbone"
            )
        return self.linears[role]


@dataclass(frozen=True)
class Sites:
    """All sites of a backbone.

    Attributes:
        blocks: from input to output.
        parameters: the backbone's own, frozen, by timm's names and in timm's order.
        head: the classifier's place.
        features: number of features that arrive there.
        first_token: whether the head reads the first token of the last block alone.
    """

    blocks: list[BlockSites]
    parameters: dict[str, nn.Parameter]
    head: Slot
    features: int
    first_token: bool = False

    def drop_unread(self) -> None:
        """Spare the last block's work on tokens that nobody reads; for adapters that keep tokens apart."""
        if self.first_token:
            last = self.blocks[-1]
            last.linear("proj").set(FirstToken(last.linear("proj").get()))
            last.mlp.wrap(FirstToken)

    def unfreeze(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The named parameters of the backbone, from now on with gradients."""
        chosen = [self.parameters[name] for name in names]
        for parameter in chosen:
            parameter.requires_grad_()
        return chosen
