"""Settings that tell the lines of a table apart."""

from __future__ import annotations

import pandas as pd

from petl_bench.report.settings import REPETITIONS, ROW_SETTINGS, TASK_SETTINGS
from petl_bench.report.sources import kept_apart

BY_TASK = -1.0
"""Placeholder for the scale or learning rate of a row that has a different one for each task."""


def told_apart(part: pd.DataFrame, sealed: bool) -> tuple[list[str], pd.DataFrame, list[str]]:
    """Return the settings that tell the lines of a table apart, with its runs and notes.

    Args:
        part: runs of one table.
        sealed: whether the protocol chose their scales and learning rates, so that these tell nothing apart.
    """
    names, part = ([*ROW_SETTINGS], part) if sealed else _by_value(part)
    return kept_apart(part, names)


def _by_value(part: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Return the settings that tell rows apart, and the runs with those columns prepared.

    A scale or learning rate is among the settings where a configuration has several of them for one task and
    seed. In the other rows, which may have a different one for each task, that column is left blank.
    """
    names = list(ROW_SETTINGS)
    for name in TASK_SETTINGS:
        if part[name].nunique() < 2:
            continue
        counts = part.groupby([*ROW_SETTINGS, "task", *REPETITIONS])[name].transform("nunique")
        varied = counts.groupby([part[key] for key in ROW_SETTINGS]).transform("max") > 1
        if varied.any():
            names.append(name)
            part = part.assign(**{name: part[name].where(varied, BY_TASK).fillna(BY_TASK)})
    return names, part
