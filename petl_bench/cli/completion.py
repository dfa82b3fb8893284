"""Completion of arguments by the shell: overrides, runs and tasks."""

from __future__ import annotations

from petl_bench.cli.common import DEFAULT_STORE
from petl_bench.errors import UserError


def overrides(incomplete: str) -> list[str]:
    """Return the overrides that begin as an incomplete one: keys, and values of groups such as `adapter`."""
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
