"""Origins of converted tensors: from which tensors of a file each tensor of a model was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Lineage(TorchFunctionMode):
    """A context that follows named tensors through torch's functions into their results.

    Args:
        tensors: tensors by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._named = dict(tensors)
        # The tensors are kept alive: Python may give the id of a deleted object to a new one.
        self._known = {id(tensor): (tensor, frozenset([name])) for name, tensor in tensors.items()}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch and note the origins of its results."""
        results = func(*args, **(kwargs or {}))
        names = frozenset[str]().union(*map(self._names, _tensors((args, kwargs or {}))))
        for result in _tensors(results):
            if names and id(result) not in self._known:
                self._known[id(result)] = (result, names)
        return results

    def _names(self, tensor: Tensor) -> frozenset[str]:
        _, names = self._known.get(id(tensor), (tensor, frozenset[str]()))
        return names

    def resized(self, results: Mapping[str, Tensor]) -> dict[str, str]:
        """Return the results that were made from one named tensor by resizing it.

        A part of a tensor, such as a third of a fused bias, shares its storage and is not resized.

        Returns:
            Names of results, with the name of the tensor that each is made of.
        """
        storages = {tensor.untyped_storage().data_ptr() for tensor in self._named.values()}
        found = {}
        for name, result in results.items():
            if result.untyped_storage().data_ptr() in storages:
                continue
            origins = self._names(result) or ({name} & self._named.keys())
            if len(origins) == 1:
                (origin,) = origins
                if self._named[origin].numel() != result.numel():
                    found[name] = origin
        return found


def _tensors(value: Any) -> Iterator[Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
