"""Mixed model of differences over tasks and seeds at once.

The difference between two rows on task t with seed s is modelled as

    d_ts = m + b_t + e_ts,    b_t ~ N(0, between^2),    e_ts ~ N(0, within^2),

with the mean difference m, which is what carries over to other tasks and other seeds, a deviation of each
task and one of each seed on it. Its test answers the same question as the signed-rank tests over tasks, with
more assumptions and more power, and its two variances say whether more tasks or more seeds would decide.

Where both rows have the same S seeds on all T tasks, the restricted maximum-likelihood estimates have a
closed form: with the mean squares between tasks, MSB, and within tasks, MSW, within^2 = MSW and
between^2 = (MSB - MSW) / S; where that is negative, between is 0 and within^2 is the variance of all
differences. The standard error of m is sqrt(between^2 / T + within^2 / (T S)). It is never below that of a
t-test of the task means, whose T - 1 degrees of freedom it is tested with: the level holds for few tasks,
too, which the normal distribution that mixed models are usually tested with does not guarantee.

(A permutation of the signs of all differences of single runs would be exact without normality, but it tests
that no task has any difference: one task suffices to reject it, and it cannot show equivalence. Permutations
of whole tasks are the signed-rank tests over tasks. statsmodels fits such models, too, but takes longer to
import than a whole report takes; the tests compare these estimates with its.)

Sources: Laird and Ware (1982) for the model; Searle, Casella and McCulloch, Variance Components (1992), for
the estimates of balanced data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petl_bench.report.paired import DECIMALS, Values
from petl_bench.report.repeated import same_seeds
from petl_bench.report.t_tests import Tested, tested
from petl_bench.report.tables import Row


@dataclass(frozen=True)
class Mixed(Tested):
    """Mean difference by a mixed model; see Tested for its other attributes.

    Attributes:
        between: standard deviation of the differences between tasks, a fraction of 1.
        within: standard deviation of the differences between seeds on one task, a fraction of 1.
        seeds: number of seeds on each task.
    """

    between: float
    within: float
    seeds: int


def mixed(pairs: Sequence[tuple[Row, Row]], margin: float) -> list[Mixed | None]:
    """Fit and test the mean difference of each pair of rows.

    Differences and equivalences are two families of tests, each adjusted over all pairs that can be tested.

    Args:
        pairs: rows to compare; both have results on the same tasks.
        margin: largest difference that counts as equivalent, a fraction of 1.

    Returns:
        A result for each pair; None with fewer than two tasks, where not all tasks have the same seeds,
        several of them, for both rows, or where all differences are equal.
    """
    tables = [_differences(row, other) for row, other in pairs]
    held = [table for table in tables if table is not None]
    if not held:
        return [None] * len(pairs)
    parts = [components(table) for table in held]
    errors = [standard_error(*part, *table.shape) for part, table in zip(parts, held, strict=True)]
    mean, freedom = (np.array([number(table) for table in held]) for number in (np.mean, _freedom))
    found = iter(
        Mixed(**vars(test), between=between, within=within, seeds=table.shape[1])
        for test, (between, within), table in zip(
            tested(mean, np.array(errors), freedom, margin), parts, held, strict=True
        )
    )
    return [None if table is None else next(found) for table in tables]


def components(differences: Values) -> tuple[float, float]:
    """Return the standard deviations between tasks and within tasks, by restricted maximum likelihood.

    Args:
        differences: shape (tasks, seeds), at least two of each.
    """
    within = float(differences.var(axis=1, ddof=1).mean())
    between = float(differences.mean(axis=1).var(ddof=1)) - within / differences.shape[1]
    if between <= 0:
        return 0.0, float(differences.std(ddof=1))
    return between**0.5, within**0.5


def standard_error(between: float, within: float, tasks: int, seeds: int) -> float:
    """Return the standard error of the mean difference over tasks and seeds."""
    return float(np.sqrt(between**2 / tasks + within**2 / (tasks * seeds)))


def _differences(row: Row, other: Row) -> Values | None:
    """Return differences of shape (tasks, seeds); None where there is no model for them."""
    seeds = {frozenset(held) for held in row.repeated.values()}
    if len(row.repeated) < 2 or len(seeds) != 1 or not same_seeds(row, other):
        return None
    order = sorted(*seeds)
    by_task = [(held, other.repeated[task]) for task, held in row.repeated.items()]
    found = np.array([[one[seed] - two[seed] for seed in order] for one, two in by_task]).round(DECIMALS)
    return found if np.ptp(found) > 0 else None


def _freedom(differences: Values) -> float:
    return len(differences) - 1.0
