"""Tests of differences on the tasks of one table, based on the variation over seeds.

The tests over tasks in petl_bench.report.statistics ask whether a finding carries over to other tasks; with
five tasks they can hardly show anything. The tests here ask a narrower question: whether other seeds would
change the mean difference on these very tasks. It is judged by the variance over the seeds of each task
alone.

Runs of one seed see the training images in the same order, and their heads and equally shaped adapters begin
with the same weights, so what is common to both rows cancels in the difference of one seed. Where both rows
have the same seeds on a task, the variance is that of these differences; elsewhere it is the sum of the
variances of both rows. That depends on which runs there are and never on their accuracies.

Sources: Student (1908) for paired differences; Welch (1947) for a sum of independent means; Satterthwaite
(1946) for its degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from petl_bench.report.paired import DECIMALS
from petl_bench.report.t_tests import Tested, tested
from petl_bench.report.tables import Row

Repetitions = Mapping[tuple[int, int], float]
"""Accuracy by seed and draw of the training images."""


def repeated(pairs: Sequence[tuple[Row, Row]], margin: float) -> list[Tested | None]:
    """Test the mean difference of each pair of rows.

    Differences and equivalences are two families of tests, each adjusted over all pairs that can be tested.

    Args:
        pairs: rows to compare; both have results on the same tasks.
        margin: largest difference that counts as equivalent, a fraction of 1.

    Returns:
        A result for each pair; None where a task has only one seed or no task varies over seeds.
    """
    measured = [_moments(row, other) for row, other in pairs]
    held = [numbers for numbers in measured if numbers is not None]
    if not held:
        return [None] * len(pairs)
    mean, error, freedom = np.array(held).T
    found = iter(tested(mean, error, freedom, margin))
    return [None if numbers is None else next(found) for numbers in measured]


def same_seeds(row: Row, other: Row) -> bool:
    """Return whether two rows have the same seeds on each task, several of them."""
    return all(
        len(held) > 1 and held.keys() == other.repeated.get(task, {}).keys()
        for task, held in row.repeated.items()
    )


def _moments(row: Row, other: Row) -> tuple[float, float, float] | None:
    """Return the mean difference over tasks, its standard error, and the degrees of freedom of the latter."""
    by_task = [(held, other.repeated[task]) for task, held in row.repeated.items()]
    parts = list(chain.from_iterable(_parts(one, two) for one, two in by_task))
    if any(seeds < 2 for _, seeds in parts):
        return None
    total = sum(variance for variance, _ in parts)
    if not total:
        return None
    means = [np.mean([*one.values()]) - np.mean([*two.values()]) for one, two in by_task]
    freedom = total**2 / sum(variance**2 / (seeds - 1) for variance, seeds in parts)
    return round(float(np.mean(means)), DECIMALS), math.sqrt(total) / len(by_task), freedom


def _parts(one: Repetitions, two: Repetitions) -> list[tuple[float, int]]:
    """Return the variances whose sum is that of a difference of means, each with its number of seeds."""
    paired = one.keys() == two.keys()
    samples = [[one[seed] - two[seed] for seed in one]] if paired else [[*one.values()], [*two.values()]]
    return [
        (round(float(np.std(held, ddof=1)), DECIMALS) ** 2 / len(held) if len(held) > 1 else 0, len(held))
        for held in samples
    ]
