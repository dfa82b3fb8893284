"""Overrides in Hydra's grammar: parsed, refused where a plan cannot use them, and written."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException

from petl_bench.errors import UserError

MOST_VALUES = 10_000
"""Maximum number of values of one override, beyond which it is a mistake."""
MOST_LEVELS = 16
"""Maximum nesting depth of lists and dictionaries in one override."""


def parse(parser: OverridesParser, lines: Sequence[str]) -> Iterator[Override]:
    """Yield the parsed overrides.

    Raises:
        UserError: one cannot be parsed, or is an addition, a deletion, or a random or continuous sweep.
        OverrideParseException: one is not in Hydra's grammar.
    """
    for line in lines:
        try:
            yield from map(_checked, parser.parse_overrides([line]))
        except RecursionError as error:  # 1,000 brackets
            raise UserError(f"override {line!r} is nested too deeply") from error
        except ValueError as error:  # a number of 5,000 digits
            raise UserError(f"override {line!r} cannot be read: {error}") from error


def _checked(override: Override) -> Override:
    """Return the override unless it is an addition, a deletion, or a random or continuous sweep.

    Raises:
        UserError: it is one.
    """
    value = override.value()
    key = override.get_key_element()
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise UserError(f"{override.input_line!r}: only KEY=VALUE overrides are taken, no + and no ~")
    if isinstance(value, IntervalSweep):
        raise UserError(
            f"{override.input_line!r}: interval() has infinitely many values; list some of them: {key}=1,2,3"
        )
    if isinstance(value, Sweep) and getattr(value, "shuffle", False):
        raise UserError(f"{override.input_line!r}: shuffle() would reorder runs; list the values instead")
    if _levels(value.list if isinstance(value, ChoiceSweep) else value) > MOST_LEVELS:
        raise RecursionError
    if key == "sweep" and override.is_sweep_override():
        raise UserError(f"{override.input_line!r}: one sweep at a time")
    if key == "seed" and not all(v.split("=")[1].isdigit() for v in values_of(override)):
        raise UserError(f"{override.input_line!r}: a seed is a whole number, 0 or more")
    return override


def _levels(value: object) -> int:
    """Return the nesting depth of lists and dictionaries."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(_levels, parts), default=0)


def alternatives(text: str, names: Sequence[str]) -> list[Any]:
    """Return the values that the right side of an override stands for.

    Args:
        text: one value, or several as in `1,2`, `range(3)` or `glob(vtab_*)`.
        names: what a glob is matched with.

    Raises:
        UserError: the text is not in Hydra's grammar, or has no values.
    """
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
        value = override.value()
        if isinstance(value, Glob):
            return sorted({*value.filter([*names])})
        if not override.is_sweep_override():
            return [_bare(value)]
        found = override.sweep_iterator(transformer=Transformer.identity)
        return [_bare(value) for value in itertools.islice(found, MOST_VALUES)]
    except (ValueError, ArithmeticError, RecursionError, HydraException) as error:
        raise UserError(f"{text!r} cannot be read: {error}") from error


def _bare(value: Any) -> Any:
    """Return a value without its quotes."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


def values_of(override: Override) -> list[str]:
    """Return ["key=a", "key=b"] for `key=a,b`; a plain override is a sweep over one value."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    key = override.get_key_element()
    try:
        texts = override.sweep_string_iterator()
        values = [f"{key}={value}" for value in itertools.islice(texts, MOST_VALUES + 1)]
    except (ValueError, ArithmeticError) as error:  # range() with a step of 0, or to infinity
        raise UserError(f"{override.input_line!r} has no values: {error}") from error
    if len(values) > MOST_VALUES:
        raise UserError(f"{override.input_line!r} has more than {MOST_VALUES:,} values")
    if not values:
        raise UserError(f"{override.input_line!r} matches nothing")
    return values


_PLAIN_WORD = re.compile(r"[A-Za-z/][\w./-]*", re.ASCII)
_OTHERWISE_READ = ("null", "true", "false", "nan", "inf")


def literal(value: Any) -> str:
    """Return a value as the grammar of overrides writes it, so that it is read as the same value."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{literal(held)}' for key, held in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(literal, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if _PLAIN_WORD.fullmatch(value) and value.lower() not in _OTHERWISE_READ:
        return value
    # Otherwise OmegaConf reads ${...} as an interpolation, and backslashes before it as escapes.
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return QuotedString(text=escaped, quote=Quote.single).with_quotes()
