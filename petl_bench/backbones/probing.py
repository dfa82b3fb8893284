"""Passes that show what a transformer does with the modules whose names are known.

All functions expect a model in evaluation mode, and two images (2, 3, S, S); see `evaluated`.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from petl_bench.backbones.sites import TokenGrid
from petl_bench.backbones.tables import find, slot_of
from petl_bench.errors import UserError


class NoPlainTransformerError(UserError):
    """A model in which no sites are found, and why."""


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, for a while."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _hooked(*handles: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def verified(
    model: nn.Module, images: Tensor, blocks: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Return the inputs of all blocks, and sites that are not what their names say, by block and role."""
    seen, doubled = (_trace(model, images, blocks, values) for values in (1.0, 2.0))
    refuted: dict[str, dict[str, str]] = defaultdict(dict)
    for path in blocks:
        x, first, d = (seen.get(f"{path}{name}") for name in ("", ".norm1", ".drop_path1="))
        middle, e, end = (seen.get(f"{path}{name}") for name in (".norm2", ".drop_path2=", "="))
        mixed, twice = (found.get(f"{path}.attn.proj") for found in (seen, doubled))
        if mixed is None or not _equal(twice, 2 * mixed):
            refuted[path]["qkv"] = "the last third of attn.qkv are not the values of the attention"
        if not _equal(first, x):
            refuted[path]["attention"] = "norm1 is not fed by the stream"
        elif not _sum(middle, first, d):
            refuted[path]["attention"] = "the result of drop_path1 is not added to it"
        if not _sum(end, middle, e):
            refuted[path]["mlp"] = "the result of drop_path2 is not added to what norm2 is fed"
    return {path: seen[path] for path in blocks if path in seen}, dict(refuted)


def _trace(model: nn.Module, images: Tensor, blocks: tuple[str, ...], values: float) -> dict[str, Tensor]:
    """Return inputs of modules by their paths, and their results by path and `=`, of one pass.

    The results of all branches are replaced by random numbers, always the same ones, since in an untrained
    model they may be too small to be seen.

    Args:
        model: the model.
        images: two images.
        blocks: paths of its blocks.
        values: factor on the last third of the results of `attn.qkv`.
    """
    seen: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, *_: seen.update({name: inputs[0]})

    def result(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({f"{name}=": output})

    def replaced(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return seen.setdefault(f"{name}=", torch.rand(output.shape, generator=generator))

        return hook

    def scaled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        size = output.shape[-1] // 3
        return torch.cat([output[..., : 2 * size], values * output[..., 2 * size :]], -1)

    handles = []
    for path in blocks:
        block = model.get_submodule(path)
        handles += [block.register_forward_pre_hook(keep(path)), block.register_forward_hook(result(path))]
        for name in ("norm1", "norm2", "attn.proj"):
            handles.append(block.get_submodule(name).register_forward_pre_hook(keep(f"{path}.{name}")))
        for name in ("drop_path1", "drop_path2"):
            handles.append(block.get_submodule(name).register_forward_hook(replaced(f"{path}.{name}")))
        handles.append(block.get_submodule("attn.qkv").register_forward_hook(scaled))
    with _hooked(*handles):
        model(images)
    return seen


def _equal(one: Tensor | None, two: Tensor | None) -> bool:
    if one is None or two is None or one.numel() != two.numel():
        return False
    return torch.allclose(one.flatten(), two.flatten(), rtol=1e-4, atol=1e-4)


def _sum(total: Tensor | None, one: Tensor | None, two: Tensor | None) -> bool:
    if one is None or two is None or one.numel() != two.numel():
        return False
    return _equal(total, one.flatten() + two.flatten())


def check_head(model: nn.Module, heads: Sequence[str], images: Tensor, features: Tensor) -> None:
    """Check that a linear in the place of the classifier is applied to the features.

    Raises:
        NoPlainTransformerError: it is not.
    """
    slots = [slot_of(model, head) for head in heads if find(model, head) is not None]
    if not slots or features.dim() != 2:
        raise NoPlainTransformerError(f"its classifier is not in the place {' and '.join(heads)}")
    held = [slot.get() for slot in slots]
    linear = nn.Linear(features.shape[1], 3)
    for slot in slots:
        slot.set(linear)
    found = model(images)
    for slot, module in zip(slots, held, strict=True):
        slot.set(module)
    if not _equal(found, linear(features)):
        raise NoPlainTransformerError(
            f"its classifier in the place {' and '.join(heads)} is not applied to the features"
        )


def layout_of(model: Any, inputs: dict[str, Tensor]) -> TokenGrid | None:
    """Return the arrangement of tokens; None if it is neither one sequence of patches nor a square map."""
    shapes = {tuple(x.shape[1:-1]) for x in inputs.values()}
    if all(len(shape) == 2 and shape[0] == shape[1] for shape in shapes):
        return TokenGrid(0, None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    if grid is None or prefix is None or shapes != {(prefix + grid[0] * grid[1],)}:
        return None
    return TokenGrid(prefix, tuple(grid))


def unread(model: nn.Module, images: Tensor, plain: Tensor, last: nn.Module) -> bool:
    """Return whether all tokens of the last block but the first can be changed without any effect."""

    def change(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([output[:, :1], output[:, 1:].flip(-1) + 1], 1)

    with _hooked(last.register_forward_hook(change)):
        return _equal(model(images), plain)


def takes_more(model: nn.Module, images: Tensor, prefix: int, first: nn.Module, last: nn.Module) -> bool:
    """Return whether the blocks work with one more token, which is removed behind them."""

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        return torch.cat([x[:, :prefix], x.mean(1, keepdim=True), x[:, prefix:]], 1), *inputs[1:]

    def remove(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.cat([output[:, :prefix], output[:, prefix + 1 :]], 1)

    with _hooked(first.register_forward_pre_hook(add), last.register_forward_hook(remove)):
        try:
            model(images)
        except (RuntimeError, ValueError, AssertionError):  # shapes that do not fit
            return False
    return True


def left_out(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Return the operations that are not applied once, or whose result does not grow with the batch."""
    calls: list[Counter[str]] = []
    sizes: list[dict[str, int]] = []

    def count(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[-1][path] += 1
            sizes[-1][path] = output.numel()

        return hook

    kinds = nn.Linear | nn.Conv2d | nn.LayerNorm
    paths = {path: module for path, module in model.named_modules() if isinstance(module, kinds)}
    with _hooked(*(module.register_forward_hook(count(path)) for path, module in paths.items())):
        for batch in (images, images[:1]):
            calls.append(Counter())
            sizes.append({})
            model(batch)
    two, one = sizes
    return tuple(p for p in paths if calls[0][p] != 1 or calls[1][p] != 1 or two[p] != 2 * one[p])
