"""Sweeps made of several grids: the entries of the key `grids` of a file in conf/sweep/."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from petl_bench.config.compose import GRIDS
from petl_bench.config.files import group_config
from petl_bench.config.overrides import alternatives, literal
from petl_bench.errors import UserError

MOST_RUNS = 100_000
"""Maximum number of combinations, beyond which an override is a mistake."""


def of_sweep(name: str, adapters: Collection[str]) -> list[dict[str, str]]:
    """Return the axes that each grid of a sweep has besides those of the whole sweep.

    A sweep without grids is one grid without such axes.

    Args:
        name: name of the sweep.
        adapters: methods that the user chose, to which each grid is reduced; empty if none were chosen.

    Raises:
        UserError: the file states anything but dictionaries of axes with an adapter, two grids of a method
            have different axes, or no grid has one of the chosen methods.
    """
    stated = group_config("sweep", name).get(GRIDS)
    if stated is None:
        return [{}]
    where = f"conf/sweep/{name}.yaml: {GRIDS}"
    if not isinstance(stated, list) or not all(isinstance(grid, Mapping) for grid in stated):
        raise UserError(f"{where} must be a list of dictionaries KEY: VALUES")
    grids = [{str(key): _text(value) for key, value in grid.items()} for grid in stated]
    methods: dict[str, set[str]] = {}
    for grid in grids:
        if "adapter" not in grid:
            raise UserError(f"{where}: a grid states no adapter")
        for adapter in _methods(grid):
            if methods.setdefault(adapter, {*grid}) != {*grid}:
                raise UserError(f"{where}: the grids of adapter={adapter} must have the same axes")
    for adapter in adapters:
        if adapter not in methods:
            raise UserError(f"sweep={name} has no adapter={adapter}: it has {', '.join(sorted(methods))}")
    kept = [[name for name in _methods(grid) if not adapters or name in adapters] for grid in grids]
    return [{**grid, "adapter": ",".join(names)} for grid, names in zip(grids, kept, strict=True) if names]


def _text(value: Any) -> str:
    """Return the values of an axis as an override states them; a text is in its grammar already."""
    return value if isinstance(value, str) else literal(value)


def _methods(grid: Mapping[str, str]) -> list[str]:
    return [str(name) for name in alternatives(grid["adapter"], ())]


def combinations(
    parts: Sequence[Mapping[str, Sequence[str]]], whole: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of a grid and one line per axis for all combinations of all grids.

    Combinations are ordered by the axes of the whole sweep first, so that an interrupted sweep holds, for
    example, whole seeds of all grids.

    Args:
        parts: lines `key=value` of the axes of each grid, by key.
        whole: axes of the whole sweep, in order.

    Raises:
        UserError: there are too many.
    """
    found = sum(math.prod(map(len, part.values())) for part in parts)
    if found > MOST_RUNS:
        raise UserError(f"the settings span {found:,} runs, more than the {MOST_RUNS:,} of one sweep")
    outer = [key for key in whole if all(part.get(key) == parts[0].get(key) for part in parts)]
    for chosen in itertools.product(*(parts[0][key] for key in outer)):
        for number, part in enumerate(parts):
            fixed = dict(zip(outer, chosen, strict=True))
            axes = [[fixed[key]] if key in fixed else values for key, values in part.items()]
            for combination in itertools.product(*axes):
                yield number, dict(zip(part, combination, strict=True))
