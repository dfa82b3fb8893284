"""Statistics of a table: against SciPy and scikit-posthocs called directly, and against counting by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from petl_bench.config import plan
from petl_bench.report.repeated import repeated
from petl_bench.report.statistics import MOST_LINES, Comparison, ranking, widths
from petl_bench.report.tables import Line, Table, tabulate
from petl_bench.types import ResultRow
from tests.conftest import make_row

SPREAD = (0.03, -0.01, -0.02)
"""Of three seeds about their mean."""
MARGIN = 0.01


@dataclass(frozen=True)
class Setting:
    """What tells one line of a made-up table from another."""

    bits: int = 1
    adapter: str = "adaptformer"
    hidden: int = 16
    packing: str = "raw"
    statistics: str = "exact"
    rate_weight: float = 0.0
    quantizer: str = "l1_median"


FLOAT = Setting(bits=32, quantizer="none")
Accuracies = Mapping[Setting, Sequence[float | None]]


@cache
def any_row() -> ResultRow:
    """Of a suite that no manifest knows: the tasks of its table are those that have rows."""
    (spec,) = plan(["task=digits", "adapter=adaptformer", "bits=1", "seed=0"]).runs
    return make_row(spec, 0.5, suite="made-up", group="any")


def table_of(lines: Accuracies, spread: Sequence[float] = SPREAD) -> Table:
    """A table with a given mean over seeds for each line and task; None: no row.

    Later tasks have fewer seeds, and the last seed of a mean balances the others: a test over rows would see
    other numbers than one over means.
    """
    rows = []
    for setting, means in lines.items():
        for place, mean in enumerate(means):
            seeds = spread[: 1 + (len(means) - place) % len(spread)]
            offsets = [offset - sum(seeds) / len(seeds) for offset in seeds]
            rows += [
                replace(any_row(), acc=mean + offset, task=f"t{place:02}", seed=seed, **vars(setting))
                for seed, offset in enumerate(offsets)
                if mean is not None
            ]
    (table,), _ = tabulate(rows, {})
    return table


def compared(differences: Sequence[float], base: float = 0.5) -> Comparison:
    """One bit against float with given differences."""
    lines = {FLOAT: [base] * len(differences), Setting(): [base + d for d in differences]}
    (comparison,) = widths(table_of(lines), MARGIN)
    return comparison


def shifted(count: int, differences: Sequence[float]) -> Table:
    """`count` adapters with the same differences of one bit from float."""
    lines: dict[Setting, list[float]] = {}
    for number in range(count):
        name = f"adapter{number}"
        lines[Setting(adapter=name)] = [0.5 + d for d in differences]
        lines[Setting(adapter=name, bits=32)] = [0.5] * len(differences)
    return table_of(lines)


def random_lines(tasks: int, bits: Sequence[int], adapters: int = 1, seed: int = 0) -> Accuracies:
    rng = np.random.default_rng(seed)
    return {
        Setting(bits=width, adapter=f"a{number}"): rng.uniform(0.4, 0.9, tasks).tolist()
        for number in range(adapters)
        for width in bits
    }


# Against the libraries, on the same numbers


@pytest.mark.parametrize("tasks", [5, 12, 19])
def test_a_comparison_is_what_scipy_says_of_the_task_means(tasks: int) -> None:
    lines = random_lines(tasks, [1, 2, 32], adapters=2, seed=tasks)
    found = widths(table_of(lines), 0.05)
    assert [(c.line.key["adapter"], c.line.key["bits"], c.against.key["bits"]) for c in found] == [
        ("a0", 1, 32),
        ("a0", 2, 32),
        ("a1", 1, 32),
        ("a1", 2, 32),
    ]
    for c in found:
        own, other = (
            np.array(lines[Setting(adapter=x.key["adapter"], bits=x.key["bits"])])
            for x in (c.line, c.against)
        )
        d = own - other
        assert c.tasks == tasks
        assert c.difference == pytest.approx(d.mean(), abs=1e-12)
        assert c.p == pytest.approx(stats.wilcoxon(own, other).pvalue, rel=1e-9)
        above = stats.wilcoxon(d + 0.05, alternative="greater").pvalue
        below = stats.wilcoxon(d - 0.05, alternative="less").pvalue
        assert c.p_equivalence == pytest.approx(max(above, below), rel=1e-9)
        # In batches of the same size, else draws differ; in whole numbers, else equal means do by rounding.
        whole = np.rint(d * 1e12)
        drawn = stats.bootstrap((whole,), np.mean, batch=200, rng=np.random.default_rng(0))
        ends = (drawn.confidence_interval.low / 1e12, drawn.confidence_interval.high / 1e12)
        assert (c.low, c.high) == pytest.approx(ends, abs=1e-9)
        assert (c.wins, c.ties, c.losses) == ((d > 0).sum(), 0, (d < 0).sum())
        signed = np.sign(d) * stats.rankdata(np.abs(d))
        assert c.effect == pytest.approx(signed.sum() / np.abs(signed).sum())


@pytest.mark.parametrize("seed", range(4))
def test_ties_and_zeros_have_the_exact_p_value_of_scipys_permutations(seed: int) -> None:
    d = np.random.default_rng(seed).integers(-3, 3, 8) / 1000
    assert len(set(np.abs(d))) < len(d)
    c = compared(d.tolist(), base=0.777)
    assert c.p == pytest.approx(stats.wilcoxon(d * 1000).pvalue, rel=1e-9)
    above = stats.wilcoxon(d * 1000 + 10, alternative="greater").pvalue
    below = stats.wilcoxon(d * 1000 - 10, alternative="less").pvalue
    assert c.p_equivalence == pytest.approx(max(above, below), rel=1e-9)


@pytest.mark.parametrize("tasks", [6, 19])
def test_a_ranking_is_what_scipy_and_scikit_posthocs_say(tasks: int) -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    lines = random_lines(tasks, [1, 2, 32], adapters=2, seed=tasks)
    found = ranking(table_of(lines))
    values = np.array(list(lines.values()))
    assert found is not None
    assert found.labels == [f"a{a} h16, {b}" for a in (0, 1) for b in ("1 bit", "2 bits", "32 bits")]
    assert [line.key["bits"] for line in found.lines] == [1, 2, 32, 1, 2, 32]
    assert found.mean_ranks == pytest.approx(stats.rankdata(-values, axis=0).mean(axis=1))
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*values).pvalue, rel=1e-9)
    expected = posthocs.posthoc_wilcoxon(values, p_adjust="holm")
    assert found.p_holm.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9)
    assert list(found.p_holm.index) == list(found.p_holm.columns) == found.labels


# By hand


def test_six_tasks_all_lower_by_hand() -> None:
    c = compared([-0.012, -0.014, -0.016, -0.018, -0.020, -0.022])
    assert c.p == pytest.approx(2 / 64)  # of 64 patterns of signs, all minus and all plus are as extreme
    assert c.p_holm == c.p  # the only comparison
    assert c.effect == -1  # all ranks are losses
    assert c.difference == pytest.approx(-0.017)  # -0.102 / 6
    # d + 0.01 is -0.002 to -0.012: all six below 0, as low as can be: 64 of 64 patterns reach that rank sum.
    assert c.p_equivalence == 1
    assert (c.wins, c.ties, c.losses) == (0, 0, 6)
    assert c.verdict == "worse"


def test_mixed_signs_and_equivalence_by_hand() -> None:
    c = compared([-0.001, 0.002, -0.003, 0.004, 0.005])
    assert c.effect == pytest.approx(7 / 15)  # ranks 1 to 5: won 2 + 4 + 5 = 11, lost 1 + 3 = 4; sum 15
    # Rank sums of losses of 4 or less: {} 1 2 3 4 12 13, 7 of 32 patterns; two-sided 14 of 32.
    assert c.p == pytest.approx(14 / 32)
    # d + 0.01 > 0 and d - 0.01 < 0 on all five: 1 of 32 patterns each.
    assert c.p_equivalence == pytest.approx(1 / 32)
    assert c.verdict == "equivalent"


def test_tied_differences_by_hand() -> None:
    # Seven: ranks of 1 1 1 are 2, of 2 2 2 2 are 5.5; the one gain has rank 2 of 28.
    c = compared([-0.001, -0.001, 0.001, -0.002, -0.002, -0.002, -0.002], base=0.832)
    # Rank sums of gains of 2 or less: none, or one of the three of rank 2: 4 of 128; two-sided 8 of 128.
    assert c.p == pytest.approx(8 / 128)  # the distribution without ties says 6 of 128, below 0.05
    assert c.effect == pytest.approx(-24 / 28)  # 2 - 26


def test_holm_by_hand() -> None:
    lines: dict[Setting, list[float]] = {FLOAT: [0.5] * 8}
    falls = {
        1: [-1, -2, -3, -4, -5, -6, -7, -8],
        2: [1, -2, -3, -4, -5, -6, -7, -8],
        4: [1, 2, -3, -4, -5, -6, -7, -8],
    }
    for bits, steps in falls.items():
        lines[Setting(bits=bits)] = [0.5 + step / 100 for step in steps]
    found = widths(table_of(lines), MARGIN)
    # Rank sums of gains of 0: 1 pattern of 256; of 1 or less: 2; of 3 or less: {} 1 2 3 12: 5; then twice.
    assert [c.p for c in found] == pytest.approx([2 / 256, 4 / 256, 10 / 256])
    # Smallest times 3, next times 2, last times 1, none below an earlier one: 6, 8, 10 of 256.
    assert [c.p_holm for c in found] == pytest.approx([6 / 256, 8 / 256, 10 / 256])


def test_holm_of_equivalence_by_hand() -> None:
    found = widths(shifted(3, [0.001, -0.002, 0.003, -0.004, 0.005, 0.006]), MARGIN)
    assert [c.p_equivalence for c in found] == pytest.approx([1 / 64] * 3)
    assert [c.p_equivalence_holm for c in found] == pytest.approx([3 / 64] * 3)  # smallest times 3
    assert {c.verdict for c in found} == {"equivalent"}
    found = widths(shifted(4, [0.001, -0.002, 0.003, -0.004, 0.005, 0.006]), MARGIN)
    assert [c.p_equivalence_holm for c in found] == pytest.approx([4 / 64] * 4)
    assert {c.verdict for c in found} == {"undecided"}


# Verdicts and sentences

SMALL = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007]
LARGE = [0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017]
MIXED = [0.05, -0.04, 0.03, -0.02, 0.06, -0.07, 0.01]


@pytest.mark.parametrize(
    ("differences", "verdict", "words"),
    [
        ([-d for d in SMALL], "worse within the margin", "lower than 32 bits"),
        (SMALL, "better within the margin", "higher than 32 bits"),
        ([-d for d in LARGE], "worse", "not shown to be within ±1.0 points"),
        (LARGE, "better", "higher than 32 bits"),
        ([0.001, -0.002, 0.003, -0.004, 0.005, -0.006, 0.0], "equivalent", "equivalent within ±1.0 points"),
        (MIXED, "undecided", "undecided: neither a difference nor equivalence within ±1.0 points is shown"),
    ],
)
def test_every_verdict(differences: list[float], verdict: str, words: str) -> None:
    c = compared(differences)
    assert c.verdict == verdict
    assert words in c.sentence
    assert "too few" not in c.sentence


def test_a_sentence_as_a_reader_sees_it() -> None:
    assert compared([-d for d in LARGE]).sentence == (
        "adaptformer h16: is 1 bit worse than 32 bits? Over 7 tasks accuracy is 1.4 points lower on average "
        "(rough 95 % interval -1.5 to -1.3; lower on 7): lower than 32 bits on a typical task, by more than "
        "chance explains (p = 0.016), and not shown to be within ±1.0 points."
    )
    equal = compared([0.0] * 5)
    assert equal.sentence == (
        "adaptformer h16: is 1 bit worse than 32 bits? Over 5 tasks accuracy differs by less than 0.1 points "
        "on average (rough 95 % interval 0.0 to 0.0; equal on 5): equivalent within ±1.0 points on a typical "
        "task (p = 0.031); 5 tasks are too few to show a difference."
    )
    table = table_of(
        {Setting(bits=8): MIXED, Setting(bits=4, packing="coded"): SMALL, Setting(bits=4): SMALL}
    )
    first, second = (c.sentence for c in widths(table, 0.0025))
    assert {first.partition("?")[0], second.partition("?")[0]} == {
        "adaptformer h16, packing raw: are 4 bits worse than 8 bits",
        "adaptformer h16, packing coded: are 4 bits worse than 8 bits",
    }
    assert "±0.25 points" in first


def test_the_direction_is_that_of_the_test_and_not_of_one_outlier() -> None:
    c = compared([0.4] + [-0.011 - step / 1000 for step in range(11)])
    assert c.difference > 0
    assert c.effect < 0
    assert c.verdict == "mixed"
    assert "points higher on average" in c.sentence
    assert "lower on 11, higher on 1): lower than 32 bits on most tasks" in c.sentence
    assert "but not on average" in c.sentence


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
    found = widths(table_of(lines), MARGIN)
    pairs = [(c.line.key["quantizer"], c.against.key["quantizer"], c.against.key["bits"]) for c in found]
    assert sorted(pairs) == [("lloyd_max", "lloyd_max", 8), ("minmax", "minmax", 8)]
    assert [c.difference for c in found] == pytest.approx([-0.02, -0.02])


def test_the_interval_is_called_rough_with_few_tasks() -> None:
    assert "(rough 95 % interval" in compared([0.01 + step / 1000 for step in range(9)]).sentence
    assert "(95 % interval" in compared([0.01 + step / 1000 for step in range(10)]).sentence


@pytest.mark.parametrize(
    ("tasks", "count", "said"),
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
    tasks: int, count: int, said: str
) -> None:
    found = widths(shifted(count, [-0.1 - step / 100 for step in range(tasks)]), MARGIN)
    assert len(found) == count
    for c in found:
        assert c.verdict == ("undecided" if said else "worse")  # as clear as differences can be
        assert re.findall(r"; (\d+ tasks are too few [^.]*)\.", c.sentence) == ([said] if said else [])
    equal = widths(shifted(count, [0.0] * tasks), MARGIN)
    assert {c.verdict for c in equal} == {"undecided" if "equivalence" in said else "equivalent"}


# What the seeds alone say


def repetitions(accuracies: Mapping[Setting, Sequence[Sequence[float]]]) -> Table:
    """A table of accuracies: line -> task -> seed."""
    rows = [
        replace(any_row(), acc=accuracy, task=f"t{place:02}", seed=seed, **vars(setting))
        for setting, tasks in accuracies.items()
        for place, seeds in enumerate(tasks)
        for seed, accuracy in enumerate(seeds)
    ]
    (table,), _ = tabulate(rows, {})
    return table


def lines_of(table: Table) -> tuple[Line, Line]:
    """The line of fewer bits, and that of most."""
    few, most = sorted(table.lines, key=lambda line: line.key["bits"])
    return few, most


def test_of_one_task_it_is_scipys_welch_test() -> None:
    one, two = [0.71, 0.74, 0.72, 0.78], [0.70, 0.69, 0.715]
    (found,) = repeated([lines_of(repetitions({Setting(): [one], FLOAT: [two]}))], MARGIN)
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
    # Seeds at m - e, m, m + e have deviation e: of each mean the variance is e^2 / 3. Two tasks, e = 0.003:
    # standard error sqrt(4 * 3e-6) / 2 = 0.001732; equal variances of 2 degrees each: 4 * 2 = 8 of them.
    # Mean difference (0.004 - 0.002) / 2 = 0.001, t = 0.57735; +-0.01 is 5.1962 and 6.3509 errors away.
    def around(mean: float) -> list[float]:
        return [mean - 0.003, mean, mean + 0.003]

    table = repetitions({Setting(): [around(0.704), around(0.598)], FLOAT: [around(0.7), around(0.6)]})
    (comparison,) = widths(table, 0.01)
    found = comparison.repeated
    assert found is not None
    assert found.p == pytest.approx(2 * stats.t.sf(0.57735027, 8))
    assert found.p_equivalence == pytest.approx(stats.t.sf(5.19615242, 8))
    assert (found.low, found.high) == pytest.approx(
        (0.001 - 2.30600414 * 0.00173205, 0.001 + 2.30600414 * 0.00173205)
    )
    assert found.verdict == "equivalent"
    said = "unadjusted 95 % interval -0.3 to 0.5, equivalent within ±1.0 points (p < 0.001)."
    assert comparison.sentence.endswith(f" Of these very tasks, over seeds: {said}")


@pytest.mark.parametrize(
    ("difference", "spread", "verdict"),
    [
        (-0.05, 0.001, "worse"),
        (0.05, 0.001, "better"),
        (-0.005, 0.001, "worse within the margin"),
        (0.0, 0.001, "equivalent"),
        (0.0, 0.05, "undecided"),
    ],
)
def test_verdicts_of_seeds(difference: float, spread: float, verdict: str) -> None:
    seeds = [-spread, 0.0, spread]
    lines = {Setting(): [[0.6 + difference + s for s in seeds]] * 5, FLOAT: [[0.6 + s for s in seeds]] * 5}
    (comparison,) = widths(repetitions(lines), MARGIN)
    assert comparison.repeated is not None
    assert comparison.repeated.verdict == verdict


def test_one_seed_says_nothing_of_others() -> None:
    (comparison,) = widths(repetitions({Setting(): [[0.6], [0.7]], FLOAT: [[0.5], [0.6]]}), MARGIN)
    assert comparison.repeated is None
    assert "over seeds" not in comparison.sentence


# Which lines take part


def test_zeros_only() -> None:
    for tasks in (5, 19):
        c = compared([0.0] * tasks)
        assert (c.difference, c.low, c.high, c.effect, c.p, c.p_holm) == (0, 0, 0, 0, 1, 1)
        assert (c.wins, c.ties, c.losses) == (0, tasks, 0)
        assert c.p_equivalence == pytest.approx(0.5**tasks)


def test_equal_differences_are_their_own_interval() -> None:
    c = compared([-0.004] * 7, base=0.831)
    assert (c.low, c.difference, c.high) == pytest.approx((-0.004,) * 3)
    assert c.effect == -1
    assert c.p == pytest.approx(2 / 128)  # seven ties of one size: all signs alike are 2 patterns


def test_binary_fractions_make_no_difference_where_decimals_do_not() -> None:
    raised = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert len({x + 0.01 - x for x in raised}) > 1
    table = table_of({FLOAT: raised, Setting(): [x + 0.01 for x in raised], Setting(bits=2): raised})
    one, two = widths(table, MARGIN)
    assert one.low == one.high  # no spread
    assert two.ties == 7
    assert one.p_equivalence == 1  # exactly at the margin: nothing is inside, and all differences are zero


def test_the_counterpart_has_most_bits_and_is_alike_otherwise() -> None:
    any_task = [0.5, 0.6]
    table = table_of(
        dict.fromkeys(
            [
                FLOAT,
                Setting(bits=32, quantizer="none", packing="coded", statistics="coded"),
                Setting(bits=8),
                Setting(bits=1, packing="coded", statistics="coded", rate_weight=0.1),
                Setting(bits=1, quantizer="kmeans"),
                Setting(bits=1, hidden=8),
                Setting(bits=8, hidden=8),
                Setting(bits=1, adapter="lora"),
                Setting(bits=32, adapter="linear", hidden=0),
                Setting(bits=1, adapter="linear", hidden=0),
            ],
            any_task,
        )
    )
    names = ("adapter", "hidden", "bits", "packing")
    found = {
        tuple(c.line.key[n] for n in names): tuple(c.against.key[n] for n in names)
        for c in widths(table, 0.1)
    }
    assert found == {
        ("adaptformer", 8, 1, "raw"): ("adaptformer", 8, 8, "raw"),
        ("adaptformer", 16, 1, "raw"): ("adaptformer", 16, 32, "raw"),
        ("adaptformer", 16, 1, "coded"): ("adaptformer", 16, 32, "coded"),
        ("adaptformer", 16, 8, "raw"): ("adaptformer", 16, 32, "raw"),
    }


def test_lines_with_a_hole_take_no_part() -> None:
    lines = random_lines(6, [1, 2, 4, 32])
    whole = table_of({**lines, FLOAT: [0.5] * 6})
    holed: dict[Setting, Sequence[float | None]] = {**lines, FLOAT: [0.5] * 6}
    holed[Setting(bits=2, adapter="a0")] = [*lines[Setting(bits=2, adapter="a0")][:5], None]
    holed[Setting(bits=32, adapter="a0")] = [None, *lines[Setting(bits=32, adapter="a0")][1:]]
    found = widths(table_of(holed), MARGIN)
    assert [(c.line.key["bits"], c.against.key["bits"]) for c in found] == [(1, 4)]
    ranked, all_ranked = ranking(table_of(holed)), ranking(whole)
    assert ranked is not None
    assert all_ranked is not None
    assert len(all_ranked.lines) == 5
    assert [line.key["bits"] for line in ranked.lines] == [1, 4, 32]


def test_a_missing_seed_is_no_hole() -> None:
    table = table_of(random_lines(6, [1, 32]))
    assert any(line.mean_of_tasks.n < max(s.n for s in line.tasks.values()) for line in table.lines)
    assert len(widths(table, MARGIN)) == 1


def test_nothing_to_compare() -> None:
    assert widths(table_of({FLOAT: [0.5], Setting(): [0.4]}), MARGIN) == []
    assert widths(table_of({FLOAT: [0.5] * 6}), MARGIN) == []
    with pytest.raises(ValueError, match="above 0"):
        widths(table_of({FLOAT: [0.5] * 6}), 0.0)


def test_rankings_that_there_are_not() -> None:
    assert ranking(table_of(random_lines(6, [1, 32]))) is None
    assert ranking(table_of(random_lines(1, [1, 2, 32]))) is None
    assert ranking(table_of(random_lines(2, [1], MOST_LINES + 1), SPREAD[:1])) is None
    assert ranking(table_of(random_lines(2, [1], MOST_LINES), SPREAD[:1])) is not None


@pytest.mark.parametrize("tasks", [6, 15])
def test_equal_lines_rank_alike(tasks: int) -> None:
    level = [0.7] * tasks
    found = ranking(table_of({Setting(bits=bits): level for bits in (1, 2, 32)}))
    assert found is not None
    assert found.mean_ranks == [2, 2, 2]
    assert found.friedman_p == 1
    assert (found.p_holm.to_numpy() == 1).all()
    low = [x - 0.1 - step / 100 for step, x in enumerate(level)]
    found = ranking(table_of({Setting(bits=1): low, Setting(bits=2): level, Setting(bits=32): level}))
    assert found is not None
    assert found.mean_ranks == [3, 1.5, 1.5]
    assert found.p_holm.to_numpy()[1, 2] == 1
    # Lower on all tasks: 2 of 2^n patterns, the smallest of three and so times 3.
    assert found.p_holm.to_numpy()[0, 1] == pytest.approx(3 * 2 / 2**tasks)


def test_labels_of_a_ranking_differ() -> None:
    table = table_of(
        {
            Setting(adapter="linear", hidden=0, packing=packing, bits=bits): [0.5 + bits / 100] * 3
            for packing, bits in product(("raw", "coded"), (1, 2))
        }
    )
    found = ranking(table)
    assert found is not None
    assert sorted(found.labels) == ["linear", "linear (2)", "linear (3)", "linear (4)"]


# Properties

STEPS = st.lists(st.integers(-60, 60), min_size=2, max_size=9)


@settings(max_examples=12, deadline=None)
@given(STEPS)
def test_swapping_all_signs_mirrors_a_comparison(steps: list[int]) -> None:
    c, m = compared([s / 1000 for s in steps]), compared([-s / 1000 for s in steps])
    assert m.difference == pytest.approx(-c.difference, abs=1e-12)
    assert m.effect == pytest.approx(-c.effect, abs=1e-12)
    assert (m.wins, m.ties, m.losses) == (c.losses, c.ties, c.wins)
    assert (m.p, m.p_equivalence) == pytest.approx((c.p, c.p_equivalence))
    assert (m.low, m.high) == pytest.approx((-c.high, -c.low), abs=1e-9)
    mirrored = {"worse": "better", "better": "worse"}
    assert m.verdict == re.sub("worse|better", lambda found: mirrored[found[0]], c.verdict)


@settings(max_examples=12, deadline=None)
@given(STEPS, st.integers(-300, 300))
def test_what_both_lines_share_changes_nothing(steps: list[int], shift: int) -> None:
    differences = [s / 1000 for s in steps]
    c, raised = compared(differences), compared(differences, base=0.5 + shift / 1000)
    numbers = [x for x in vars(c) if x not in ("line", "against")]
    assert [getattr(c, x) for x in numbers] == [getattr(raised, x) for x in numbers]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.integers(-30, 30), min_size=6, max_size=6), min_size=1, max_size=4))
def test_p_values_are_chances_and_adjusting_never_lowers_one(table: list[list[int]]) -> None:
    lines: dict[Setting, list[float]] = {FLOAT: [0.5] * 6}
    lines |= {Setting(bits=1 + n): [0.5 + s / 1000 for s in steps] for n, steps in enumerate(table)}
    found = widths(table_of(lines), MARGIN)
    assert len(found) == len(table)
    for c, steps in zip(found, table, strict=True):
        assert 0 < c.p <= c.p_holm <= 1
        assert 0 < c.p_equivalence <= c.p_equivalence_holm <= 1
        assert -1 <= c.effect <= 1
        assert c.low <= c.difference + 1e-12
        assert c.difference <= c.high + 1e-12
        assert c.wins + c.ties + c.losses == 6
        scaled = np.array(steps, dtype=float)
        if scaled.any():
            assert c.p == pytest.approx(stats.wilcoxon(scaled).pvalue)
        # What else is in the table changes no number but the adjusted p-values.
        alone = compared([s / 1000 for s in steps])
        assert (c.p, c.low, c.high, c.effect) == pytest.approx((alone.p, alone.low, alone.high, alone.effect))
