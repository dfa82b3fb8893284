"""Differences on the very tasks of a table: what other seeds would show of them, not other tasks.

The tests over tasks of petl_bench.report.statistics ask whether a finding carries to tasks that are not
there; with five of them they can show nothing. These ask less: each task's accuracies scatter over seeds, and
the mean difference over the tasks is judged by that scatter alone. Welch's test (1947) for a sum of
independent means, with Satterthwaite's degrees of freedom (1946), and Schuirmann's two one-sided tests
(1987). Both lines may have the same seeds: what these share is not taken out, which makes the tests careful.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petl_bench.report.paired import DECIMALS, LEVEL, Values, holm
from petl_bench.report.tables import Line


@dataclass(frozen=True)
class Repeated:
    """The mean difference over the tasks of a table, as fractions, by the scatter over seeds."""

    low: float
    high: float
    """95 % interval."""
    p: float
    """Two-sided: that there is no difference."""
    p_holm: float
    p_equivalence: float
    """Larger p of the two one-sided tests that the difference is above -margin and below margin."""
    p_equivalence_holm: float
    verdict: str


def repeated(pairs: Sequence[tuple[Line, Line]], margin: float) -> list[Repeated | None]:
    """One for each pair of lines; None where a task has one seed, or no task scatters.

    Adjusted over the pairs that have one, differences and equivalences each as a family.
    """
    measured = [_moments(line, other) for line, other in pairs]
    held = [numbers for numbers in measured if numbers is not None]
    if not held:
        return [None] * len(pairs)
    mean, error, freedom = np.array(held).T
    found = iter(_tested(mean, error, freedom, margin))
    return [None if numbers is None else next(found) for numbers in measured]


def _moments(line: Line, other: Line) -> tuple[float, float, float] | None:
    """Mean difference over tasks, its standard error and the degrees of freedom of that."""
    means, variances = [], []
    for task in line.tasks:
        one, two = line.tasks[task], other.tasks[task]
        if one.mean is None or two.mean is None or one.std is None or two.std is None:
            return None
        means.append(round(one.mean - two.mean, DECIMALS))
        variances += [round(std, DECIMALS) ** 2 / n for std, n in ((one.std, one.n), (two.std, two.n))]
    count = len(means)
    seeds = [value.n for task in line.tasks for value in (line.tasks[task], other.tasks[task])]
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
