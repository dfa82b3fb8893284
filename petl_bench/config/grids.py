"""Sweeps made of several grids: the entries of the key `grids` of a file in conf/sweep/."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from petl_bench.config.compose import GRIDS
from petl_bench.config.files import group_config, groups, place_of
from petl_bench.config.keys import PLAIN, suggested
from petl_bench.config.overrides import alternatives, literal
from petl_bench.config.presets import GROUP
from petl_bench.config.recipes import flat
from petl_bench.errors import UserError
from petl_bench.types import methods

OF_OPTION = {"name", "quantized"}
"""Keys of the options themselves, which the option that an override chooses could not replace."""
MOST_RUNS = 100_000
"""Maximum number of combinations, beyond which an override is a mistake."""


def of_sweep(name: str, adapters: Collection[str], axes: Collection[str]) -> list[dict[str, str]]:
    """Return the axes that each grid of a sweep has besides those of the whole sweep.

    A sweep without grids is one grid without such axes.

    Args:
        name: name of the sweep.
        adapters: methods that the user chose, to which each grid is reduced; empty if none were chosen.
        axes: keys of the axes of the whole sweep.

    Raises:
        UserError: the file states what would have no effect, anything but dictionaries of axes with an
            adapter, an axis of the whole sweep in a grid, two grids of a method with different axes, or no
            grid has one of the chosen methods.
    """
    where, content = place_of("sweep", name), group_config("sweep", name)
    _check_content(where, content, axes)
    if GRIDS not in content:
        return [{}]
    stated, where = content[GRIDS], f"{where}: {GRIDS}"
    if not isinstance(stated, list) or not stated or not all(isinstance(grid, Mapping) for grid in stated):
        raise UserError(f"{where} must be a list of dictionaries KEY: VALUES")
    found = [{str(key): _text(value) for key, value in grid.items()} for grid in stated]
    of_method: dict[str, set[str]] = {}
    for grid in found:
        if "adapter" not in grid:
            raise UserError(f"{where}: a grid states no adapter")
        if twice := next((key for key in grid if key in {*axes, "sweep"}), None):
            raise UserError(f"{where}: a grid cannot state {twice}, which belongs to the whole sweep")
        for adapter in _methods(grid, where):
            if of_method.setdefault(adapter, {*grid}) != {*grid}:
                raise UserError(f"{where}: the grids of adapter={adapter} must have the same axes")
    for adapter in adapters:
        if adapter not in of_method:
            raise UserError(f"sweep={name} has no adapter={adapter}: it has {', '.join(sorted(of_method))}")
    kept = [[name for name in _methods(grid, where) if not adapters or name in adapters] for grid in found]
    return [{**grid, "adapter": ",".join(names)} for grid, names in zip(found, kept, strict=True) if names]


def _check_content(where: str, content: Mapping[str, Any], axes: Collection[str]) -> None:
    """Check that everything that the file of a sweep states has an effect.

    Options of groups are axes, because one in the body of the file would count more than the user's choice.

    Args:
        where: the file, for messages.
        content: its content.
        axes: keys of the axes of the whole sweep.

    Raises:
        UserError: it has an unknown key, an option of a group outside the axes, or a sweep as an axis.
    """
    known = {*groups(), *PLAIN, "data", GRIDS, "hydra"} - {"sweep"}
    for key, value in content.items():
        group, _, setting = key.partition(".")
        if setting and group in known:
            raise UserError(f"{where}: {key}: write it in its group, as {group}: {{{setting}: {value}}}")
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}: {suggested(key, known)}")
        if key in groups() and (key == GROUP or not isinstance(value, Mapping) or OF_OPTION & value.keys()):
            raise UserError(
                f"{where}: {key}: options are chosen by an axis, {key}: NAME under hydra.sweeper.params"
            )
    if "sweep" in axes:
        raise UserError(f"{where}: sweep is no axis, because a sweep holds no other one")


def stated(name: str, parts: Sequence[Mapping[str, Sequence[str]]], given: Collection[str]) -> list[str]:
    """Return the settings that the file of a sweep states and no override replaces, as `key=value`.

    Args:
        name: name of the sweep.
        parts: lines `key=value` of the axes of each grid, by key.
        given: keys of the overrides that the user gave.
    """
    lines: dict[str, list[str]] = {}
    for key, line in ((key, line) for part in parts for key, values in part.items() for line in values):
        lines.setdefault(key, []).append(line.partition("=")[2])
    body = {key: value for key, value in group_config("sweep", name).items() if key not in (GRIDS, "hydra")}
    of_body = {key: [str(value)] for key, value in flat(body)}
    return [
        f"{key}={','.join(dict.fromkeys(values))}"
        for key, values in (of_body | lines).items()
        if key not in given
    ]


def _text(value: Any) -> str:
    """Return the values of an axis as an override states them; a text is in its grammar already."""
    return value if isinstance(value, str) else literal(value)


def _methods(grid: Mapping[str, str], where: str) -> list[str]:
    """Return the methods of a grid.

    Raises:
        UserError: it states none.
    """
    found = alternatives(grid["adapter"], [*methods()])
    if not found or not all(isinstance(name, str) and name for name in found):
        raise UserError(f"{where}: adapter: {grid['adapter']}: write names, as in adapter: lora,linear")
    return found


ONE_OF_A_SWEEP = ("data.cache", "data.cache_gb")
"""Settings, besides those of the launcher, that all runs of a sweep share."""


def check_shared(parts: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """Refuse several values of a setting that all runs of a sweep share, of which one alone would be used.

    Args:
        parts: lines `key=value` of the axes of each grid, by key.

    Raises:
        UserError: there are several.
    """
    for key in dict.fromkeys(key for part in parts for key in part):
        if key.partition(".")[0] == "launcher" or key in ONE_OF_A_SWEEP:
            held = [part.get(key, ()) for part in parts]
            if len(held[0]) != 1 or any(lines != held[0] for lines in held):
                raise UserError(f"{key}: all runs of a sweep share one value; give one, for all grids")


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
