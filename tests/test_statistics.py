"""Statistics of a table: against SciPy and scikit-posthocs called directly, and against counting by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from petl_bench.config import plan
from petl_bench.report.pairs import by_width
from petl_bench.report.statistics import Comparison, compare, ranking
from petl_bench.report.tables import Table, tabulate
from petl_bench.types import ResultRow
from tests.made import make_row

OFFSETS = (0.03, -0.01, -0.02)
"""Offsets of three seeds from their mean."""
MARGIN = 0.01


@dataclass(frozen=True)
class Setting:
    """Settings that tell the rows of a made-up table apart."""

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
    """Return a run of a suite without manifests, whose table has the tasks that were run."""
    (spec,) = plan(["task=digits", "adapter=adaptformer", "bits=1", "seed=0"]).runs
    return make_row(spec, 0.5, suite="made-up", group="any")


def table_of(accuracies: Accuracies, offsets: Sequence[float] = OFFSETS) -> Table:
    """Return a table with a given mean over seeds for each row and task; None for no result.

    Later tasks have fewer seeds, and the last seed of a mean balances the others: a test over runs would see
    other numbers than a test over means.
    """
    rows = []
    for setting, means in accuracies.items():
        for place, mean in enumerate(means):
            seeds = offsets[: 1 + (len(means) - place) % len(offsets)]
            centred = [offset - sum(seeds) / len(seeds) for offset in seeds]
            rows += [
                replace(any_row(), acc=mean + offset, task=f"t{place:02}", seed=seed, **vars(setting))
                for seed, offset in enumerate(centred)
                if mean is not None
            ]
    (table,), _ = tabulate(rows, {})
    return table


def compare_widths(table: Table, margin: float) -> list[Comparison]:
    """Compare each row with its counterpart with the most bits."""
    return compare(table, by_width(table), margin)


def compared(differences: Sequence[float], base: float = 0.5) -> Comparison:
    """Compare one bit with float, with given differences."""
    lines = {FLOAT: [base] * len(differences), Setting(): [base + d for d in differences]}
    (comparison,) = compare_widths(table_of(lines), MARGIN)
    return comparison


def shifted(count: int, differences: Sequence[float]) -> Table:
    """Return a table of `count` adapters with the same differences between one bit and float."""
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
    found = compare_widths(table_of(lines), 0.05)
    assert [(c.row.key["adapter"], c.row.key["bits"], c.against.key["bits"]) for c in found] == [
        ("a0", 1, 32),
        ("a0", 2, 32),
        ("a1", 1, 32),
        ("a1", 2, 32),
    ]
    for c in found:
        own, other = (
            np.array(lines[Setting(adapter=x.key["adapter"], bits=x.key["bits"])]) for x in (c.row, c.against)
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
    assert [row.key["bits"] for row in found.rows] == [1, 2, 32, 1, 2, 32]
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
    found = compare_widths(table_of(lines), MARGIN)
    # Rank sums of gains of 0: 1 pattern of 256; of 1 or less: 2; of 3 or less: {} 1 2 3 12: 5; then twice.
    assert [c.p for c in found] == pytest.approx([2 / 256, 4 / 256, 10 / 256])
    # Smallest times 3, next times 2, last times 1, none below an earlier one: 6, 8, 10 of 256.
    assert [c.p_holm for c in found] == pytest.approx([6 / 256, 8 / 256, 10 / 256])


def test_holm_of_equivalence_by_hand() -> None:
    found = compare_widths(shifted(3, [0.001, -0.002, 0.003, -0.004, 0.005, 0.006]), MARGIN)
    assert [c.p_equivalence for c in found] == pytest.approx([1 / 64] * 3)
    assert [c.p_equivalence_holm for c in found] == pytest.approx([3 / 64] * 3)  # smallest times 3
    assert {c.verdict for c in found} == {"equivalent"}
    found = compare_widths(shifted(4, [0.001, -0.002, 0.003, -0.004, 0.005, 0.006]), MARGIN)
    assert [c.p_equivalence_holm for c in found] == pytest.approx([4 / 64] * 4)
    assert {c.verdict for c in found} == {"undecided"}


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
    numbers = [x for x in vars(c) if x not in ("row", "against")]
    assert [getattr(c, x) for x in numbers] == [getattr(raised, x) for x in numbers]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.integers(-30, 30), min_size=6, max_size=6), min_size=1, max_size=3))
def test_p_values_are_chances_and_adjusting_never_lowers_one(table: list[list[int]]) -> None:
    lines: dict[Setting, list[float]] = {FLOAT: [0.5] * 6}
    lines |= {Setting(bits=1 + n): [0.5 + s / 1000 for s in steps] for n, steps in enumerate(table)}
    found = compare_widths(table_of(lines), MARGIN)
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
