"""Statistics of a table over its tasks: comparisons of pairs of rows, and a ranking of all rows.

Each task counts once, with its mean over seeds: several seeds of one task are not independent evidence about
other tasks.

Sources: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7, 2006), for tests over
tasks; Schuirmann (1987) for equivalence by two one-sided tests; those of petl_bench.report.paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from petl_bench.report.labels import label
from petl_bench.report.mixed import Mixed, mixed
from petl_bench.report.paired import DECIMALS, LEVEL, Values, effects, holm, intervals, signed_rank
from petl_bench.report.pairs import Pair, complete
from petl_bench.report.repeated import repeated, same_seeds
from petl_bench.report.t_tests import Tested
from petl_bench.report.tables import Row, Table

MOST_ROWS = 24
"""Largest number of rows that are ranked; the number of their pairs grows with its square."""


@dataclass(frozen=True)
class Comparison:
    """A row compared with another one, paired over tasks.

    Accuracies are fractions of 1. The interval is about the mean difference. Tests and effect size are
    based on ranks and are about a typical task: one outlying task changes the mean a lot but the ranks
    hardly.

    Attributes:
        row: the row in question.
        against: the row that it is compared with.
        tasks: number of tasks.
        difference: mean over tasks of `row` minus `against`.
        std: standard deviation of the differences between tasks, of means over seeds.
        low, high: ends of the unadjusted 95 % BCa bootstrap interval of the mean difference, over tasks.
        effect: matched-pairs rank-biserial correlation from -1 (lower on all tasks) to 1; 0 if all are equal.
        wins, ties, losses: numbers of tasks on which `row` is higher, equal and lower.
        p: p-value of the two-sided exact Wilcoxon signed-rank test; tasks without a difference are left out.
        p_holm: `p`, adjusted over all comparisons of the table.
        p_equivalence: larger p-value of the two one-sided tests against -margin and margin.
        p_equivalence_holm: `p_equivalence`, adjusted over all comparisons of the table.
        margin: largest difference that counts as equivalent.
        verdict: "better" or "worse", each also "within the margin"; "equivalent", "mixed" or "undecided".
        repeated: result of the tests over seeds on these very tasks; None where they cannot be made.
        mixed: result of the mixed model over tasks and seeds at once; None where it cannot be fitted.
    """

    row: Row
    against: Row
    tasks: int
    difference: float
    std: float
    low: float
    high: float
    effect: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float
    p_equivalence: float
    p_equivalence_holm: float
    margin: float
    verdict: str
    repeated: Tested | None
    mixed: Mixed | None

    @property
    def paired(self) -> bool:
        """Return whether both rows have the same seeds on each task, so that seeds are paired, too."""
        return same_seeds(self.row, self.against)


@dataclass(frozen=True)
class Ranking:
    """Ranks of the rows of a table over its tasks.

    Attributes:
        labels: a different label for each row, in the order of the table.
        rows: the rows that are ranked.
        mean_ranks: mean rank over tasks; 1 is best, equal accuracies share the average of their ranks.
        friedman_p: p-value of Friedman's test that all rows are equal (chi-square approximation, which is
            coarse for fewer than ten tasks).
        p_holm: p-values of two-sided exact Wilcoxon signed-rank tests between all pairs of rows,
            Holm-adjusted over the pairs; rows and columns are the labels.
    """

    labels: list[str]
    rows: list[Row]
    mean_ranks: list[float]
    friedman_p: float
    p_holm: pd.DataFrame


def compare(table: Table, pairs: Sequence[Pair], margin: float) -> list[Comparison]:
    """Compare pairs of rows of a table.

    Differences are one family of tests and equivalences another, each Holm-adjusted over all pairs: among
    many comparisons some would seem different, or equivalent, by chance.

    Args:
        table: the table whose rows are compared.
        pairs: rows that have a result on every task, and the rows that they are compared with.
        margin: largest difference that counts as equivalent, a fraction of accuracy (0.01 is one point).

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"the margin of equivalence is {margin}; it must be above 0")
    if not pairs:
        return []
    rows, others = zip(*pairs, strict=True)
    differences = np.round(_accuracies(table, rows) - _accuracies(table, others), DECIMALS)
    above = signed_rank(np.round(differences + margin, DECIMALS), "greater")
    below = signed_rank(np.round(differences - margin, DECIMALS), "less")
    low, high = intervals(differences, 1 - LEVEL)
    p = signed_rank(differences, "two-sided")
    p_equivalence = np.maximum(above, below)
    numbers = {
        "difference": differences.mean(axis=1),
        "std": differences.std(axis=1, ddof=1),
        "low": low,
        "high": high,
        "effect": effects(differences),
        "wins": (differences > 0).sum(axis=1),
        "ties": (differences == 0).sum(axis=1),
        "losses": (differences < 0).sum(axis=1),
        "p": p,
        "p_holm": holm(p),
        "p_equivalence": p_equivalence,
        "p_equivalence_holm": holm(p_equivalence),
    }
    values = zip(*(column.tolist() for column in numbers.values()), strict=True)
    # Where images were drawn repeatedly, seeds of one draw are not independent.
    single = table.repetition == "seeds"
    own = repeated(pairs, margin) if single else [None] * len(pairs)
    both = mixed(pairs, margin) if single else [None] * len(pairs)
    return [
        _comparison(pair, len(table.tasks), margin, dict(zip(numbers, held, strict=True)) | more)
        for pair, held, more in zip(
            pairs, values, ({"repeated": r, "mixed": m} for r, m in zip(own, both, strict=True)), strict=True
        )
    ]


def ranking(table: Table) -> Ranking | None:
    """Rank all complete rows on each task and compare them in pairs.

    Returns:
        The ranking; None with fewer than 3 or more than MOST_ROWS complete rows, or with fewer than 2 tasks.
    """
    from scipy.stats import friedmanchisquare, rankdata

    rows = complete(table)
    if not 3 <= len(rows) <= MOST_ROWS or len(table.tasks) < 2:
        return None
    accuracies = np.round(_accuracies(table, rows), DECIMALS)
    labels = _unique([label(row, table) for row in rows])
    first, second = np.array(list(combinations(range(len(rows)), 2))).T
    adjusted = holm(signed_rank(np.round(accuracies[first] - accuracies[second], DECIMALS), "two-sided"))
    p_holm = np.ones((len(rows), len(rows)))
    p_holm[first, second] = p_holm[second, first] = adjusted
    equal = bool((accuracies == accuracies[0]).all())  # where the test is undefined
    return Ranking(
        labels=labels,
        rows=rows,
        mean_ranks=rankdata(-accuracies, axis=0).mean(axis=1).tolist(),
        friedman_p=1.0 if equal else float(friedmanchisquare(*accuracies).pvalue),
        p_holm=pd.DataFrame(p_holm, index=labels, columns=labels),
    )


def _accuracies(table: Table, rows: Sequence[Row]) -> Values:
    """Return mean accuracies of shape (rows, tasks)."""
    return np.array([[row.tasks[task.name].mean for task in table.tasks] for row in rows], dtype=float)


def _comparison(pair: Pair, tasks: int, margin: float, numbers: dict[str, Any]) -> Comparison:
    near = numbers["p_equivalence_holm"] < LEVEL and abs(numbers["difference"]) <= margin
    verdict = _verdict(numbers["difference"], numbers["effect"], numbers["p_holm"], near)
    return Comparison(*pair, tasks=tasks, margin=margin, verdict=verdict, **numbers)


def _verdict(difference: float, effect: float, p: float, near: bool) -> str:
    """Combine the tests by ranks and the mean; "mixed" where an outlying task reverses the sign of the mean.

    Args:
        difference: mean difference.
        effect: effect size, whose sign is the direction of the test by ranks.
        p: adjusted p-value of the difference.
        near: equivalence is shown, and the mean difference itself is within the margin.
    """
    if p < LEVEL and difference * effect < 0:
        return "mixed"
    direction = "better" if effect > 0 else "worse"
    if p < LEVEL:
        return f"{direction} within the margin" if near else direction
    return "equivalent" if near else "undecided"


def _unique(labels: Sequence[str]) -> list[str]:
    """Number repeated labels: some rows are told apart by settings that no label shows."""
    before = [labels[:place].count(text) for place, text in enumerate(labels)]
    return [f"{text} ({count + 1})" if count else text for text, count in zip(labels, before, strict=True)]
