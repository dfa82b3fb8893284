"""Completion of arguments by the shell: overrides, runs and tasks."""

from __future__ import annotations

import os
import shlex

from petl_bench.cli.common import DEFAULT_STORE
from petl_bench.errors import UserError

BASH = {"_PETL_BENCH_COMPLETE": "complete_bash"}
"""Variable by which the script of bash asks for completions."""
_split: list[str] = []
"""The beginning of the incomplete word, up to its last `=`, if bash takes it for other words."""


def join_words() -> None:
    """Read the line as bash means it, if it asks for completions.

    To bash, `adapter=lo` is the three words `adapter`, `=` and `lo`, and a completion replaces the last one.
    Words before the incomplete one are joined; what belongs to this one is kept for `overrides`.
    """
    if os.environ.items() & BASH.items() != BASH.items():
        return
    try:
        words, number = shlex.split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
    except (KeyError, ValueError):  # an open quote, within which bash does not split
        return
    joined: list[str] = []
    for place, word in enumerate(words[: number + 1]):
        if place and (word == "=" or words[place - 1] == "="):
            joined[-1] += word
        else:
            joined.append(word)
    if number < len(words) and len(joined) <= number:
        key, equals, last = joined.pop().rpartition("=")
        _split[:] = [key + equals]
        os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = shlex.join([*joined, last]), str(len(joined))


def overrides(incomplete: str) -> list[str]:
    """Return the overrides that begin as an incomplete one: keys, and values of groups such as `adapter`.

    What bash takes for other words is left out.
    """
    beginning = "".join(_split)
    return [found.removeprefix(beginning) for found in _overrides(beginning + incomplete)]


def _overrides(incomplete: str) -> list[str]:
    from petl_bench.config import groups, keys, options

    key, equals, values = incomplete.partition("=")
    if not equals:
        names = sorted(groups() | {known.name for known in keys()})
        return [f"{name}=" for name in names if name.startswith(key)]
    if key not in groups():
        return []
    chosen, comma, last = values.rpartition(",")
    taken = chosen.split(",")
    found = [name for name in options(key) if name.startswith(last) and name not in taken]
    return [f"{key}={chosen}{comma}{name}" for name in found]


def runs(incomplete: str) -> list[str]:
    """Return the runs of the store `results`, the default of --store, whose run_ids begin so."""
    from petl_bench.store import Store

    try:
        names = Store(DEFAULT_STORE).names()
    except UserError:  # there is no store here
        return []
    return [name for name in names if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """Return the tasks whose names begin so."""
    from petl_bench.data import manifests

    return [name for name in manifests() if name.startswith(incomplete)]
