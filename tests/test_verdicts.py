"""Verdicts and sentences of comparisons, over tasks and over seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from petl_bench.report.repeated import repeated
from petl_bench.report.sentences import sentences
from petl_bench.report.tables import Row, Table, tabulate
from tests.test_statistics import FLOAT, MARGIN, Setting, any_row, compare_widths, compared, shifted, table_of

# Verdicts and sentences


def said(table: Table, margin: float = MARGIN) -> list[str]:
    """Return the sentences of all comparisons of a table."""
    return sentences(compare_widths(table, margin), table)


def sentence_of(differences: Sequence[float]) -> str:
    """Return the sentence that compares one bit with float, with given differences."""
    (sentence,) = said(table_of({FLOAT: [0.5] * len(differences), Setting(): [0.5 + d for d in differences]}))
    return sentence


SMALL = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007]
LARGE = [0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017]
MIXED = [0.05, -0.04, 0.03, -0.02, 0.06, -0.07, 0.01]


@pytest.mark.parametrize(
    ("differences", "verdict", "words"),
    [
        ([-d for d in SMALL], "worse within the margin", "lower than 32 bits"),
        (SMALL, "better within the margin", "higher than 32 bits"),
        ([-d for d in LARGE], "worse", "not shown to be equivalent within ±1.0 points"),
        (LARGE, "better", "significantly higher than 32 bits"),
        ([0.001, -0.002, 0.003, -0.004, 0.005, -0.006, 0.0], "equivalent", "equivalent within ±1.0 points"),
        (MIXED, "undecided", "undecided, neither a difference (p = "),
    ],
)
def test_every_verdict(differences: list[float], verdict: str, words: str) -> None:
    assert compared(differences).verdict == verdict
    assert words in sentence_of(differences)
    assert "too few" not in sentence_of(differences)


def test_a_sentence_as_a_reader_sees_it() -> None:
    assert sentence_of([-d for d in LARGE]) == (
        "adaptformer h16: is 1 bit worse than 32 bits? On average over 7 tasks, accuracy is 1.4 points lower "
        "(approximate 95 % interval -1.5 to -1.3; lower on 7). Verdict: significantly lower than 32 bits on "
        "a typical task (p = 0.016), and not shown to be equivalent within ±1.0 points."
    )
    assert sentence_of([0.0] * 5) == (
        "adaptformer h16: is 1 bit worse than 32 bits? On average over 5 tasks, accuracy differs by less "
        "than 0.1 points (approximate 95 % interval 0.0 to 0.0; equal on 5). Verdict: equivalent within ±1.0 "
        "points on a typical task (p = 0.031); 5 tasks are too few to show a difference."
    )
    assert sentence_of(MIXED).endswith(
        "undecided, neither a difference (p = 0.94) nor equivalence within ±1.0 points (p = 0.36) is shown."
    )
    table = table_of(
        {Setting(bits=8): MIXED, Setting(bits=4, packing="coded"): SMALL, Setting(bits=4): SMALL}
    )
    first, second = said(table, 0.0025)
    assert {first.partition("?")[0], second.partition("?")[0]} == {
        "adaptformer h16, packing raw: are 4 bits worse than 8 bits",
        "adaptformer h16, packing coded: are 4 bits worse than 8 bits",
    }
    assert "±0.25 points" in first


def test_the_direction_is_that_of_the_test_and_not_of_one_outlier() -> None:
    differences = [0.4] + [-0.011 - step / 1000 for step in range(11)]
    c, sentence = compared(differences), sentence_of(differences)
    assert c.difference > 0
    assert c.effect < 0
    assert c.verdict == "mixed"
    assert "points higher" in sentence
    assert "lower on 11, higher on 1). Verdict: significantly lower than 32 bits on most tasks" in sentence
    assert sentence.endswith(", but not on average.")


def test_a_mean_beyond_the_margin_is_no_equivalence() -> None:
    c = compared([0.0005 + step / 10000 for step in range(18)] + [-0.5])  # 18 small gains, one large loss
    assert c.p_equivalence_holm < 0.05
    assert c.difference < -MARGIN
    assert c.verdict == "mixed"
    even = compared([sign * (0.001 + step / 2000) for step in range(7) for sign in (1, -1)] + [-0.4])
    assert even.p_equivalence_holm < 0.05 <= even.p_holm
    assert even.difference < -MARGIN
    assert even.verdict == "undecided"


def test_quantizers_are_not_compared_with_each_other() -> None:
    level = {"minmax": 0.5, "lloyd_max": 0.9}
    lines = {
        Setting(bits=bits, quantizer=name): [level[name] - (0.02 if bits == 2 else 0)] * 6
        for name in level
        for bits in (2, 8)
    }
    found = compare_widths(table_of(lines), MARGIN)
    pairs = [(c.row.key["quantizer"], c.against.key["quantizer"], c.against.key["bits"]) for c in found]
    assert sorted(pairs) == [("lloyd_max", "lloyd_max", 8), ("minmax", "minmax", 8)]
    assert [c.difference for c in found] == pytest.approx([-0.02, -0.02])


def test_the_interval_is_called_approximate_with_few_tasks() -> None:
    assert "(approximate 95 % interval" in sentence_of([0.01 + step / 1000 for step in range(9)])
    assert "(95 % interval" in sentence_of([0.01 + step / 1000 for step in range(10)])


@pytest.mark.parametrize(
    ("tasks", "count", "words"),
    [
        (2, 1, "2 tasks are too few to show a difference or equivalence"),  # 1 / 4
        (4, 1, "4 tasks are too few to show a difference or equivalence"),  # 1 / 16 >= 0.05
        (5, 1, "5 tasks are too few to show a difference"),  # 1 / 32 < 0.05 <= 2 / 32
        (6, 1, ""),  # 2 / 64 < 0.05
        (6, 2, "6 tasks are too few to show a difference among 2 comparisons"),  # 4 / 64
        (7, 4, "7 tasks are too few to show a difference among 4 comparisons"),  # 8 / 128
        (7, 3, ""),  # 6 / 128 < 0.05
    ],
)
def test_too_few_tasks_are_said_exactly_where_no_difference_could_be_shown(
    tasks: int, count: int, words: str
) -> None:
    table = shifted(count, [-0.1 - step / 100 for step in range(tasks)])
    found = compare_widths(table, MARGIN)
    assert len(found) == count
    for c, sentence in zip(found, said(table), strict=True):
        assert c.verdict == ("undecided" if words else "worse")  # as clear as differences can be
        assert re.findall(r"; (\d+ tasks are too few [^.]*)\.", sentence) == ([words] if words else [])
    equal = compare_widths(shifted(count, [0.0] * tasks), MARGIN)
    assert {c.verdict for c in equal} == {"undecided" if "equivalence" in words else "equivalent"}


# Tests over seeds


def repetitions(accuracies: Mapping[Setting, Sequence[Sequence[float]]], paired: bool = False) -> Table:
    """Return a table of accuracies: row -> task -> seed. Rows have the same seeds if they are paired."""
    rows = [
        replace(any_row(), acc=accuracy, task=f"t{place:02}", seed=seed, **vars(setting))
        for setting, tasks in accuracies.items()
        for place, seeds in enumerate(tasks)
        for seed, accuracy in enumerate(seeds, 0 if paired else 100 * setting.bits)
    ]
    (table,), _ = tabulate(rows, {})
    return table


def rows_of(table: Table) -> tuple[Row, Row]:
    """Return the row with fewer bits and the row with the most bits."""
    few, most = sorted(table.rows, key=lambda row: row.key["bits"])
    return few, most


def test_of_one_task_it_is_scipys_welch_test() -> None:
    one, two = [0.71, 0.74, 0.72, 0.78], [0.70, 0.69, 0.715]
    (found,) = repeated([rows_of(repetitions({Setting(): [one], FLOAT: [two]}))], MARGIN)
    assert found is not None
    wanted = stats.ttest_ind(one, two, equal_var=False)
    assert found.p == found.p_holm == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    sides = [
        stats.ttest_ind(np.add(one, MARGIN), two, equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(np.subtract(one, MARGIN), two, equal_var=False, alternative="less").pvalue,
    ]
    assert found.p_equivalence == pytest.approx(max(sides))


def test_over_tasks_by_hand() -> None:
    # Seeds at m - e, m, m + e have standard deviation e; the variance of each mean is e^2 / 3. Two tasks,
    # e = 0.003: standard error sqrt(4 * 3e-6) / 2 = 0.001732; equal variances of 2 degrees each: 4 * 2 = 8.
    # Mean difference (0.004 - 0.002) / 2 = 0.001, t = 0.57735; +-0.01 is 5.1962 and 6.3509 errors away.
    def around(mean: float) -> list[float]:
        return [mean - 0.003, mean, mean + 0.003]

    table = repetitions({Setting(): [around(0.704), around(0.598)], FLOAT: [around(0.7), around(0.6)]})
    (comparison,) = compare_widths(table, 0.01)
    found = comparison.repeated
    assert found is not None
    assert found.p == pytest.approx(2 * stats.t.sf(0.57735027, 8))
    assert found.p_equivalence == pytest.approx(stats.t.sf(5.19615242, 8))
    assert (found.low, found.high) == pytest.approx(
        (0.001 - 2.30600414 * 0.00173205, 0.001 + 2.30600414 * 0.00173205)
    )
    assert found.verdict == "equivalent"
    (sentence,) = said(table)
    assert sentence.endswith(
        " On these tasks alone, over seeds: unadjusted 95 % interval -0.3 to 0.5; "
        "equivalent within ±1.0 points (p < 0.001)."
    )


@pytest.mark.parametrize(
    ("difference", "offset", "verdict"),
    [
        (-0.05, 0.001, "worse"),
        (0.05, 0.001, "better"),
        (-0.005, 0.001, "worse within the margin"),
        (0.0, 0.001, "equivalent"),
        (0.0, 0.05, "undecided"),
    ],
)
def test_verdicts_over_seeds(difference: float, offset: float, verdict: str) -> None:
    seeds = [-offset, 0.0, offset]
    lines = {Setting(): [[0.6 + difference + s for s in seeds]] * 5, FLOAT: [[0.6 + s for s in seeds]] * 5}
    (comparison,) = compare_widths(repetitions(lines), MARGIN)
    assert comparison.repeated is not None
    assert comparison.repeated.verdict == verdict


def test_paired_seeds_of_one_task_are_scipys_paired_test() -> None:
    one, two = [0.71, 0.74, 0.72, 0.78], [0.70, 0.72, 0.715, 0.75]
    pair = rows_of(repetitions({Setting(): [one], FLOAT: [two]}, paired=True))
    (found,) = repeated([pair], MARGIN)
    assert found is not None
    wanted = stats.ttest_rel(one, two)
    assert found.p == found.p_holm == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_seeds_are_paired_only_on_tasks_where_both_rows_have_the_same() -> None:
    # By hand: task t00 has differences 0.02, 0.00, 0.01: variance 0.0001 / 3 of 2 degrees. On task t01 the
    # second row lacks seed 2: 0.0001 / 3 of 2 degrees, and 0.0002 / 2 of 1.
    one = [[0.72, 0.70, 0.71], [0.62, 0.60, 0.61]]
    table = repetitions({Setting(): one, FLOAT: [[0.70, 0.70, 0.70], [0.60, 0.62]]}, paired=True)
    (found,) = repeated([rows_of(table)], MARGIN)
    assert found is not None
    parts = [(0.0001 / 3, 2), (0.0001 / 3, 2), (0.0002 / 2, 1)]
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    half = stats.t.ppf(0.975, freedom) * total**0.5 / 2
    assert (found.low, found.high) == pytest.approx((0.005 - half, 0.005 + half))
    (comparison,) = compare_widths(table, MARGIN)
    assert not comparison.paired
    assert comparison.mixed is None
    assert ", over seeds:" in said(table)[0]


def test_a_sentence_names_paired_seeds_and_the_mixed_model() -> None:
    lines = {Setting(): [[0.60, 0.61, 0.60], [0.70, 0.70, 0.71]], FLOAT: [[0.6] * 3, [0.7] * 3]}
    (sentence,) = said(repetitions(lines, paired=True))
    assert " On these tasks alone, over paired seeds: unadjusted 95 % interval " in sentence
    assert " Over tasks and seeds at once, by a mixed model: unadjusted 95 % interval " in sentence


def test_one_seed_says_nothing_of_others() -> None:
    table = repetitions({Setting(): [[0.6], [0.7]], FLOAT: [[0.5], [0.6]]})
    (comparison,) = compare_widths(table, MARGIN)
    assert comparison.repeated is None
    (sentence,) = said(table)
    assert "over seeds" not in sentence
