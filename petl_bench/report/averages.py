"""Means and standard deviations over repetitions, for each task, group of tasks and average of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petl_bench.report.settings import REPETITIONS

LINE = "line"
"""Column with the number of the table's row that shows a run."""
TASK, GROUP, MEAN = "task", "group", "mean"
HEADLINE = (MEAN, "groups")
"""Kinds of columns while means are computed, and the column of the main result."""


@dataclass(frozen=True)
class Statistic:
    """Mean and unbiased standard deviation over n repetitions.

    The mean is None where there is no result, the standard deviation is None for n < 2. `variants` is the
    largest number of variants of a cell in it (petl_bench.report.variants).
    """

    n: int
    mean: float | None
    std: float | None
    variants: int = 1


def wide(latest: pd.DataFrame, column: str, groups: Mapping[str, list[str]]) -> pd.DataFrame:
    """Return accuracies with a row for each table row and repetition, a column for each task and average.

    A mean over tasks exists for a repetition only where it has every task: skipna=False.
    """
    members = [name for held in groups.values() for name in held]
    tasks = (
        latest.pivot(index=[LINE, *REPETITIONS], columns="task", values=column)
        .reindex(columns=members)
        .astype(float)
    )
    means = {(GROUP, group): tasks[held].mean(axis=1, skipna=False) for group, held in groups.items()}
    averages = {HEADLINE: pd.DataFrame(means).mean(axis=1, skipna=False)}
    averages[MEAN, "tasks"] = tasks.mean(axis=1, skipna=False)
    tasks.columns = pd.MultiIndex.from_product([[TASK], members])
    return pd.concat([tasks, pd.DataFrame(means | averages)], axis=1)


def aggregated(accuracies: pd.DataFrame) -> dict[int, dict[str, dict[Any, float]]]:
    """Return count, mean and standard deviation over repetitions of each column, by row of the table."""
    grouped = accuracies.groupby(level=LINE)
    parts: Any = {name: getattr(grouped, name)().to_dict("index") for name in ("count", "mean", "std")}
    return {line: {name: part[line] for name, part in parts.items()} for line in parts["count"]}


def statistic(
    values: Mapping[str, Mapping[Any, float]], column: tuple[str, str], variants: Iterable[int]
) -> Statistic:
    """Return the statistic of a column that `aggregated` found for a row of the table."""
    count, mean, std = (values[name][column] for name in ("count", "mean", "std"))
    return Statistic(int(count), number(mean), number(std), max(variants, default=1))


def number(value: float) -> float | None:
    """Return a number of pandas as a Python number, and a missing one as None."""
    return None if pd.isna(value) else float(value)
