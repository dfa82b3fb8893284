"""What a table shows beyond chance: fewer bits against most bits, and the order of its lines, over tasks.

A task counts once, with the mean over its seeds: seeds of one task are no independent evidence of another.
Methods: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7, 2006), for tests over
tasks; Schuirmann (1987) for equivalence by two one-sided tests; those of `paired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from petl_bench.report.columns import label
from petl_bench.report.paired import DECIMALS, LEVEL, Values, effects, holm, intervals, signed_rank
from petl_bench.report.repeated import Repeated, repeated
from petl_bench.report.sentences import sentence
from petl_bench.report.settings import PREFERRED, WIDTH_SETTINGS
from petl_bench.report.tables import Line, Table

MOST_LINES = 24
"""A ranking of more is no use to a reader: its pairs grow with the square."""
NONE = "none"
"""Quantizer of a line that has none: 32 bits."""


@dataclass(frozen=True)
class Comparison:
    """A line with fewer bits against its counterpart with the most, paired over tasks.

    Accuracies are fractions. The interval is of the mean difference; tests and effect are about a typical
    task, by ranks: one outlying task moves the former, hardly the latter.
    """

    line: Line
    against: Line
    tasks: int
    difference: float
    """Mean over tasks of line minus against."""
    low: float
    high: float
    """95 % BCa bootstrap interval of the mean difference, over tasks."""
    effect: float
    """Matched-pairs rank-biserial correlation: -1 (worse on all tasks) to 1; 0 where all are equal."""
    wins: int
    ties: int
    losses: int
    p: float
    """Two-sided exact Wilcoxon signed-rank test; tasks without a difference are left out."""
    p_holm: float
    """p, adjusted over all comparisons of the table."""
    p_equivalence: float
    """Larger p of the two one-sided tests that the difference is above -margin and below margin."""
    p_equivalence_holm: float
    """p_equivalence, adjusted over all comparisons of the table."""
    margin: float
    verdict: str
    repeated: Repeated | None
    """What the seeds alone say, of these very tasks."""
    sentence: str
    """Verdict and numbers in plain English; accuracies in points, p-values adjusted."""


@dataclass(frozen=True)
class Ranking:
    """The order of lines over tasks."""

    labels: list[str]
    """One each, all different, in the order of the table."""
    lines: list[Line]
    mean_ranks: list[float]
    """Mean over tasks; 1 is best, equal accuracies share the average of their ranks."""
    friedman_p: float
    """That all lines are equal: Friedman's test (by chi-square: coarse with fewer than ten tasks)."""
    p_holm: pd.DataFrame
    """Labels by labels: two-sided exact Wilcoxon signed-rank tests, Holm-adjusted over all pairs."""


def widths(table: Table, margin: float) -> list[Comparison]:
    """Each line against the line with the most bits that is like it otherwise; lines with holes take no part.

    Differences are one family of tests and equivalences another, each Holm-adjusted over the table: among
    many comparisons some would seem equivalent by chance, just as some would seem different.

    Args:
        margin: largest difference that does not matter, as a fraction of accuracy (0.01 is one point).

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"the margin of equivalence is {margin}; it must be above 0")
    pairs = _counterparts([line for line in _complete(table) if line.key["hidden"]])
    if not pairs or len(table.tasks) < 2:
        return []
    lines, others = zip(*pairs, strict=True)
    differences = np.round(_accuracies(table, lines) - _accuracies(table, others), DECIMALS)
    above = signed_rank(np.round(differences + margin, DECIMALS), "greater")
    below = signed_rank(np.round(differences - margin, DECIMALS), "less")
    low, high = intervals(differences, 1 - LEVEL)
    p = signed_rank(differences, "two-sided")
    p_equivalence = np.maximum(above, below)
    numbers = {
        "difference": differences.mean(axis=1),
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
    rows = zip(*(column.tolist() for column in numbers.values()), strict=True)
    return [
        _comparison(pair, table, margin, dict(zip(numbers, row, strict=True)), own, len(pairs))
        for pair, row, own in zip(pairs, rows, _of_seeds(pairs, table, margin), strict=True)
    ]


def _of_seeds(pairs: Sequence[tuple[Line, Line]], table: Table, margin: float) -> list[Repeated | None]:
    """None where repetitions are draws of the images too: seeds of one draw are not independent."""
    return repeated(pairs, margin) if table.repetition == "seeds" else [None] * len(pairs)


def ranking(table: Table) -> Ranking | None:
    """All lines without a hole, ranked on each task and compared by pairs.

    None with fewer than 3 or more than MOST_LINES such lines, or fewer than 2 tasks.
    """
    from scipy.stats import friedmanchisquare, rankdata

    lines = _complete(table)
    if not 3 <= len(lines) <= MOST_LINES or len(table.tasks) < 2:
        return None
    accuracies = np.round(_accuracies(table, lines), DECIMALS)
    labels = _unique([label(line, table) for line in lines])
    first, second = np.array(list(combinations(range(len(lines)), 2))).T
    adjusted = holm(signed_rank(np.round(accuracies[first] - accuracies[second], DECIMALS), "two-sided"))
    p_holm = np.ones((len(lines), len(lines)))
    p_holm[first, second] = p_holm[second, first] = adjusted
    equal = bool((accuracies == accuracies[0]).all())  # where the test is undefined
    return Ranking(
        labels=labels,
        lines=lines,
        mean_ranks=rankdata(-accuracies, axis=0).mean(axis=1).tolist(),
        friedman_p=1.0 if equal else float(friedmanchisquare(*accuracies).pvalue),
        p_holm=pd.DataFrame(p_holm, index=labels, columns=labels),
    )


def _complete(table: Table) -> list[Line]:
    return [
        line for line in table.lines if all(line.tasks[task.name].mean is not None for task in table.tasks)
    ]


def _accuracies(table: Table, lines: Sequence[Line]) -> Values:
    """Lines by tasks."""
    return np.array([[line.tasks[task.name].mean for task in table.tasks] for line in lines], dtype=float)


def _counterparts(lines: Sequence[Line]) -> list[tuple[Line, Line]]:
    """Each line and the one with the most bits of those like it, where that has more.

    Of several with as many bits the one with the same scale counts, then rate, rate weight, packing and
    statistics. Quantizers are never compared with each other, only with none.
    """
    alike: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        alike.setdefault(_method(line), []).append(line)
    pairs = []
    for line in lines:
        fitting = [o for o in alike[_method(line)] if o.key["quantizer"] in (line.key["quantizer"], NONE)]
        pairs.append((line, max(fitting, key=partial(_closeness, line))))
    return [(line, against) for line, against in pairs if line.key["bits"] < against.key["bits"]]


def _closeness(line: Line, other: Line) -> tuple[int, ...]:
    shared = (other.key.get(name) == line.key.get(name) for name in PREFERRED)
    return other.key["bits"], *shared


def _method(line: Line) -> tuple[object, ...]:
    return tuple(value for name, value in line.key.items() if name not in WIDTH_SETTINGS)


def _comparison(
    pair: tuple[Line, Line],
    table: Table,
    margin: float,
    numbers: dict[str, Any],
    own: Repeated | None,
    family: int,
) -> Comparison:
    near = numbers["p_equivalence_holm"] < LEVEL and abs(numbers["difference"]) <= margin
    compared = Comparison(
        *pair,
        tasks=len(table.tasks),
        margin=margin,
        verdict=_verdict(numbers["difference"], numbers["effect"], numbers["p_holm"], near),
        repeated=own,
        sentence="",
        **numbers,
    )
    return replace(compared, sentence=sentence(compared, table, family))


def _verdict(difference: float, effect: float, p: float, near: bool) -> str:
    """What tests by ranks and the mean say together; `mixed` where an outlying task turns the mean around.

    Args:
        near: whether equivalence is shown, and the mean difference itself is within the margin.
    """
    if p < LEVEL and difference * effect < 0:
        return "mixed"
    direction = "better" if effect > 0 else "worse"
    if p < LEVEL:
        return f"{direction} within the margin" if near else direction
    return "equivalent" if near else "undecided"


def _unique(labels: Sequence[str]) -> list[str]:
    """Labels that an earlier line has get a number: settings that no label shows tell such lines apart."""
    before = [labels[:place].count(text) for place, text in enumerate(labels)]
    return [f"{text} ({count + 1})" if count else text for text, count in zip(labels, before, strict=True)]
