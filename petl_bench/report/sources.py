"""Runs of one configuration that different source code has made: no repetitions of each other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from petl_bench.report.settings import ROW_SETTINGS, SOURCES, WIDTH_SETTINGS

UNKNOWN = "unknown"
"""Source of an old row, where others of its configuration have several."""


def kept_apart(part: pd.DataFrame, names: Sequence[str]) -> tuple[list[str], pd.DataFrame, list[str]]:
    """Tell runs apart by the source code of their adapter, quantizer or head where it differs.

    Args:
        part: runs of one table.
        names: settings that tell its rows apart.

    Returns:
        The settings with those columns of SOURCES that differ; the runs, in which these columns are empty
        where a configuration has at most one known source; and a note for each of these columns.
    """
    found, notes = list(names), []
    for column, what in SOURCES.items():
        held = part[column]
        if held[held != ""].nunique() < 2:
            continue
        same = [name for name in ROW_SETTINGS if column == "source_quantizer" or name not in WIDTH_SETTINGS]
        several = held.where(held != "").groupby([part[name] for name in same]).transform("nunique") > 1
        if not several.any():
            continue
        found.append(column)
        part = part.assign(**{column: held.replace("", UNKNOWN).where(several, "")})
        methods = ", ".join(sorted({*part["adapter"][several]}))
        notes.append(
            f"runs of {methods} were made by different source code of their {what}: each has rows of its own "
            f"({column}), and no mean is over several"
        )
    return found, part, notes
