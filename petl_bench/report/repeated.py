"""Tests of differences on the tasks of one table, based on the variation over seeds.

The tests over tasks in petl_bench.report.statistics ask whether a finding carries over to other tasks; with
five tasks they can hardly show anything. The tests here ask a narrower question: whether other seeds would
change the mean difference on these very tasks. It is judged by the variance over the seeds of each task
alone. Both rows may use the same seeds; their correlation is ignored, which makes the tests conservative.

Sources: Welch (1947) for a sum of independent means; Satterthwaite (1946) for its degrees of freedom;
Schuirmann (1987) for equivalence by two one-sided tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petl_bench.report.paired import DECIMALS, LEVEL, Values, holm
from petl_bench.report.tables import Row


@dataclass(frozen=True)
class Repeated:
    """Mean difference over the tasks of a table, judged by the variation over seeds.

    Attributes:
        low, high: ends of the unadjusted 95 % interval of the mean difference, as fractions of 1.
        p: two-sided p-value of the hypothesis that there is no difference.
        p_holm: `p`, adjusted over all comparisons of the table.
        p_equivalence: larger p-value of the two one-sided tests against -margin and margin.
        p_equivalence_holm: `p_equivalence`, adjusted over all comparisons of the table.
        verdict: "better" or "worse", each also "within the margin"; "equivalent" or "undecided".
    """

    low: float
    high: float
    p: float
    p_holm: float
    p_equivalence: float
    p_equivalence_holm: float
    verdict: str


def repeated(pairs: Sequence[tuple[Row, Row]], margin: float) -> list[Repeated | None]:
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
    found = iter(_tested(mean, error, freedom, margin))
    return [None if numbers is None else next(found) for numbers in measured]


def _moments(row: Row, other: Row) -> tuple[float, float, float] | None:
    """Return the mean difference over tasks, its standard error, and the degrees of freedom of the latter."""
    means, variances = [], []
    for task in row.tasks:
        one, two = row.tasks[task], other.tasks[task]
        if one.mean is None or two.mean is None or one.std is None or two.std is None:
            return None
        means.append(round(one.mean - two.mean, DECIMALS))
        variances += [round(std, DECIMALS) ** 2 / n for std, n in ((one.std, one.n), (two.std, two.n))]
    count = len(means)
    seeds = [value.n for task in row.tasks for value in (row.tasks[task], other.tasks[task])]
    total = sum(variances)
    if not total:
        return None
    freedom = total**2 / sum(v**2 / (n - 1) for v, n in zip(variances, seeds, strict=True))
    return sum(means) / count, math.sqrt(total) / count, freedom


def _tested(mean: Values, error: Values, freedom: Values, margin: float) -> list[Repeated]:
    from scipy.stats import t

    half = t.ppf(1 - LEVEL / 2, freedom) * error
    p = 2 * t.sf(np.abs(mean) / error, freedom)
    above, below = t.sf((mean + margin) / error, freedom), t.cdf((mean - margin) / error, freedom)
    p_equivalence = np.maximum(above, below)
    columns = (mean - half, mean + half, p, holm(p), p_equivalence, holm(p_equivalence))
    rows = np.array(columns).T.tolist()
    return [
        Repeated(low, high, p, p_holm, near, near_holm, _verdict(value, p_holm, near_holm))
        for value, (low, high, p, p_holm, near, near_holm) in zip(mean.tolist(), rows, strict=True)
    ]


def _verdict(difference: float, p: float, p_equivalence: float) -> str:
    near = p_equivalence < LEVEL
    if p >= LEVEL:
        return "equivalent" if near else "undecided"
    return ("better" if difference > 0 else "worse") + (" within the margin" if near else "")
