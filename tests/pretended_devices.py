"""Facts of pretended GPUs (tests.pretended_cuda): their state, and what is known of torch's operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

BACKEND = "pretended"
"""Name under which torch knows these tensors below their own `device`."""
WAITING = {
    "aten::_local_scalar_dense": "value read",
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::equal": "equal",
    "aten::_unique2": "unique",
    "aten::linalg_cholesky_ex": "decomposition",
    "aten::_linalg_eigh": "decomposition",
    "aten::_linalg_svd": "decomposition",
}
"""Operations that make the host wait for a GPU."""
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_foreach_copy_"}
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
VIEWS = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "expand", "slice"),
    *("select", "unsqueeze", "squeeze", "detach", "alias", "as_strided", "unbind", "split", "diagonal"),
    *("split_with_sizes", "chunk", "narrow", "unfold", "lift_fresh"),
}
"""Operations that compute and copy nothing."""


@dataclass
class Counts:
    """Operations on GPUs since the last step of an optimizer."""

    operations: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)


@dataclass
class Devices:
    """The pretended GPUs of this process."""

    count: int = 2
    current: int = 0
    allowed: set[int] = field(default_factory=lambda: {0, 1})
    """GPUs on which tensors may be created."""
    steps: list[Counts] = field(default_factory=list)
    """Counts of the finished steps of optimizers, each from one step's end to the next."""
    now: Counts = field(default_factory=Counts)
    opened: set[int] = field(default_factory=set)
    """GPUs that hold a context of this process."""
    peak_resets: int = 0
    latest: torch.device | None = None
    """GPU of the latest operation."""
    most: int | None = None
    """Numbers in a tensor for which a GPU has memory; None: any."""
    failing: dict[str, str] = field(default_factory=dict)
    """Operations that raise torch's error with this message, for example {"aten::mm": "CUDA error: ..."}."""

    def forget(self) -> None:
        self.steps.clear()
        self.now = Counts()

    @property
    def last_step(self) -> Counts:
        """The counts of the last whole step, from the end of the one before it to its own."""
        return self.steps[-1]


DEVICES = Devices()


@dataclass(frozen=True)
class Facts:
    """Facts about an operation of torch."""

    name: str
    copies: bool
    composite: bool
    """True if torch computes the operation by other operations on every device."""
    aliases: bool
    """True if the result may share memory with the arguments."""


@cache
def facts(operation: Any) -> Facts:
    name, key = operation.name(), "CompositeImplicitAutograd"
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(name, key) and operation._can_decompose()
    aliases = any(value.alias_info is not None for value in operation._schema.returns)
    name = operation._schema.name
    return Facts(name, name in COPIES, composite and name not in COPIES, aliases)


def check_int_mm(left: torch.Tensor, right: torch.Tensor) -> None:
    """Refuse what CUDA has no integer product for."""
    (rows, inner), columns = left.shape, right.shape[1]
    if rows <= 16 or inner % 8 or columns % 8:
        raise RuntimeError(f"_int_mm has no kernel for ({rows}, {inner}) @ ({inner}, {columns})")
    if not (left.is_contiguous() and right.t().is_contiguous()):
        raise RuntimeError(f"_int_mm has no kernel for strides {left.stride()} and {right.stride()}")


def leaves(values: Iterable[Any], found: list[Any]) -> list[Any]:
    """Append the arguments of an operation to a list, those in lists one after another, and return it."""
    for value in values:
        if isinstance(value, (list, tuple)):  # a union takes three times as long
            leaves(value, found)
        else:
            found.append(value)
    return found


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """A value, or a list or tuple of values, with a function applied to each."""
    if isinstance(value, (list, tuple)):  # a union takes three times as long
        return type(value)([mapped(function, one) for one in value])
    return function(value)
