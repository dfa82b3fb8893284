"""Power of comparisons: what a number of tasks and of seeds can show, given how much differences vary.

A mean difference has the standard error of the mixed model in petl_bench.report.mixed: over other tasks and
seeds sqrt(between^2 / tasks + within^2 / (tasks seeds)), with tasks - 1 degrees of freedom; on the same tasks
within / sqrt(tasks seeds), with tasks (seeds - 1) degrees of freedom. A t statistic whose true mean is k
standard errors from zero has the noncentral t distribution with noncentrality k, which gives the chance that
a test shows a difference, or equivalence. Levels are those of the first step of Holm's method, LEVEL divided
by the number of comparisons, which every other step is above.

Sources: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), for the power of t-tests;
Phillips (1990) for that of two one-sided tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from petl_bench.report.mixed import standard_error
from petl_bench.report.paired import LEVEL
from petl_bench.report.statistics import Comparison

CHANCE = 0.8
"""Probability with which what is called the smallest difference or margin is shown."""
TASKS = (10, 20, 50)
"""Numbers of tasks of designs, beside that of the table."""
SEEDS = (3, 5, 10)
"""Numbers of seeds of designs, beside that of the table."""
FEWEST_TASKS = 3
"""Smallest number of tasks whose power is stated: two leave one degree of freedom."""


@dataclass(frozen=True)
class Reach:
    """Smallest findings that a test of a mean difference can show; all values are fractions of 1.

    Attributes:
        interval: half the width of the unadjusted 95 % interval.
        difference: smallest true difference that is shown with probability CHANCE.
        margin: smallest margin within which equivalence is shown with probability CHANCE at least, if there
            is no difference.
    """

    interval: float
    difference: float
    margin: float


@dataclass(frozen=True)
class Design:
    """A number of tasks and seeds, with what they can show.

    Attributes:
        tasks: number of tasks.
        seeds: number of seeds on each task.
        between: standard deviation of differences between tasks, a fraction of 1.
        within: standard deviation of differences between seeds on one task; None: unknown, `between` is then
            that of means over `seeds` seeds.
        ranks: "both" a difference and equivalence, "equivalence", or "neither": what the signed-rank tests
            over tasks can show if all tasks agree.
        other_tasks: reach over other tasks and seeds; None with too few tasks.
        these_tasks: reach over seeds on the same tasks; None with one seed.
    """

    tasks: int
    seeds: int
    between: float
    within: float | None
    ranks: str
    other_tasks: Reach | None
    these_tasks: Reach | None


@dataclass(frozen=True)
class Power:
    """Power of the comparisons of one table.

    Attributes:
        own: what each comparison could have shown, with the tasks and seeds that there are.
        designs: what these and other numbers of tasks and seeds can show, with the median standard deviations
            of all comparisons.
    """

    own: list[Design]
    designs: list[Design]


def power(comparisons: Sequence[Comparison]) -> Power | None:
    """Return the power of the comparisons of a table; None without comparisons."""
    if not comparisons:
        return None
    family = len(comparisons)
    own = [_own(compared, family) for compared in comparisons]
    seeds = max(design.seeds for design in own)
    known = [design for design in own if design.within is not None and design.seeds == seeds]
    between = median(design.between for design in known or own)
    within = median(design.within or 0 for design in known) if known else None
    designs = [
        reach_of(tasks, repetitions, between, within, family)
        for tasks in sorted({comparisons[0].tasks, *TASKS})
        for repetitions in (sorted({seeds, *SEEDS}) if known else [seeds])
    ]
    return Power(own, designs)


def _own(compared: Comparison, family: int) -> Design:
    model = compared.mixed
    if model is not None:
        return reach_of(compared.tasks, model.seeds, model.between, model.within, family)
    seeds = min(value.n for row in (compared.row, compared.against) for value in row.tasks.values())
    return reach_of(compared.tasks, seeds, compared.std, None, family)


def reach_of(tasks: int, seeds: int, between: float, within: float | None, family: int) -> Design:
    """Return what a number of tasks and seeds can show.

    Args:
        tasks: number of tasks.
        seeds: number of seeds on each task.
        between: standard deviation of differences between tasks.
        within: standard deviation of differences between seeds on one task; None if unknown.
        family: number of comparisons that p-values are adjusted for.
    """
    error = standard_error(between, within or 0, tasks, seeds)
    other = _reach(error, tasks - 1, family) if tasks >= FEWEST_TASKS else None
    these = None
    if within is not None and seeds > 1:
        these = _reach(standard_error(0, within, tasks, seeds), tasks * (seeds - 1), family)
    least = family / 2**tasks  # smallest p-value of a one-sided signed-rank test; see sentences
    ranks = "both" if 2 * least < LEVEL else "equivalence" if least < LEVEL else "neither"
    return Design(tasks, seeds, between, within, ranks, other, these)


def _reach(error: float, freedom: int, family: int) -> Reach:
    return Reach(*(error * distance for distance in _distances(freedom, family)))


@cache
def _distances(freedom: int, family: int) -> tuple[float, float, float]:
    """Return the values of a Reach in standard errors."""
    from scipy.stats import t

    difference = noncentrality(float(t.isf(LEVEL / family / 2, freedom)), freedom, CHANCE)
    # Both one-sided tests reject with a probability of at least the sum of theirs minus 1.
    margin = noncentrality(float(t.isf(LEVEL / family, freedom)), freedom, (1 + CHANCE) / 2)
    return float(t.isf(LEVEL / 2, freedom)), difference, margin


def noncentrality(critical: float, freedom: int, chance: float) -> float:
    """Return how many standard errors from zero a mean is whose t statistic exceeds a value with a chance.

    Args:
        critical: the value that the statistic has to exceed, above 0.
        freedom: degrees of freedom of the standard error.
        chance: probability of exceeding it, above 0.5.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct

    high = 2 * critical + 2
    while nct.sf(critical, freedom, high) < chance:
        high *= 2
    return float(brentq(lambda distance: nct.sf(critical, freedom, distance) - chance, 0, high))
