"""The mixed model over tasks and seeds: against statsmodels, SciPy, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from petl_bench.report.mixed import components, mixed, standard_error
from petl_bench.report.statistics import compare
from tests.test_statistics import FLOAT, MARGIN, Setting
from tests.test_verdicts import repetitions, rows_of

STEPS = st.integers(-40, 40)
TABLES = st.integers(2, 5).flatmap(
    lambda seeds: st.lists(st.lists(STEPS, min_size=seeds, max_size=seeds), min_size=2, max_size=8)
)
"""Differences by task and seed, in thousandths."""


def fitted(differences: np.ndarray, base: float = 0.5):
    lines = {Setting(): (base + differences).tolist(), FLOAT: np.full_like(differences, base).tolist()}
    table = repetitions(lines, paired=True)
    return table, mixed([rows_of(table)], MARGIN)[0]


@pytest.mark.parametrize(("between", "tasks", "seeds"), [(0.02, 6, 3), (0.005, 19, 3), (0.0, 8, 4)])
def test_estimates_are_those_of_statsmodels(between: float, tasks: int, seeds: int) -> None:
    """The last case has no variance between tasks, where the optimizer ends near the boundary."""
    mixed_lm = pytest.importorskip("statsmodels.regression.mixed_linear_model").MixedLM
    rng = np.random.default_rng(tasks)
    if between:
        values = rng.normal(-0.01, between, (tasks, 1)) + rng.normal(0, 0.01, (tasks, seeds))
    else:
        values = rng.normal(-0.01, 0.01, (tasks, seeds))
        values += 0.7 * (values.mean() - values.mean(axis=1, keepdims=True))
    values = np.round(values, 6)
    _, found = fitted(values)
    assert found is not None
    groups = np.repeat(np.arange(tasks), seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the boundary
        model = mixed_lm(100 * values.ravel(), np.ones((values.size, 1)), groups).fit(reml=True)
    variance = float(model.cov_re.squeeze())
    assert found.within == pytest.approx(model.scale**0.5 / 100, rel=1e-3)
    assert found.between == pytest.approx(variance**0.5 / 100, rel=1e-3, abs=2e-4)
    assert (found.between > 0) == bool(between)
    mean, error = float(model.fe_params[0]) / 100, float(model.bse_fe[0]) / 100
    half = stats.t.ppf(0.975, tasks - 1) * error
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=2e-3, abs=1e-5)
    assert found.seeds == seeds


def test_by_hand() -> None:
    # In points: task means 1 and 3, so MSB = 3 * (1 + 1) / 1 = 6. Seeds -1, 0, 1: MSW = 1.
    # within = 1, between^2 = 5 / 3. Error^2 = 5 / 6 + 1 / 6 = 1 = MSB / 6, of 1 degree: t = 2.
    _, found = fitted(np.array([[0.0, 0.01, 0.02], [0.02, 0.03, 0.04]]))
    assert found is not None
    assert found.within == pytest.approx(0.01)
    assert found.between == pytest.approx(0.01 * (5 / 3) ** 0.5)
    assert found.p == pytest.approx(2 * stats.t.sf(2, 1))
    assert found.p_equivalence == pytest.approx(stats.t.cdf(1, 1))  # 2 points are above the margin of 1


@settings(max_examples=20, deadline=None)
@given(TABLES)
def test_it_is_never_bolder_than_the_t_test_of_the_task_means(steps: list[list[int]]) -> None:
    values = np.array(steps) / 1000
    between, within = components(values)
    tasks, seeds = values.shape
    error = standard_error(between, within, tasks, seeds)
    plain = values.mean(axis=1).std(ddof=1) / tasks**0.5
    assert error >= plain * (1 - 1e-9)
    if between > 0:
        assert error == pytest.approx(plain)


@settings(max_examples=8, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_tasks_and_seeds_and_the_common_level_change_nothing(steps, random) -> None:
    values = np.array(steps) / 1000
    other = values[random.sample(range(len(values)), len(values))]
    other = other[:, random.sample(range(values.shape[1]), values.shape[1])]
    (_, one), (_, two), (_, raised) = fitted(values), fitted(other), fitted(values, 0.7)
    assert (one is None) == (two is None) == (raised is None)
    assert (one is None) == (np.ptp(values) == 0)
    if one is not None:
        for found in (two, raised):
            numbers = (found.low, found.high, found.p, found.between, found.within)
            assert numbers == pytest.approx((one.low, one.high, one.p, one.between, one.within), abs=1e-9)


@pytest.mark.parametrize(
    "lines",
    [
        {Setting(): [[0.6], [0.7]], FLOAT: [[0.5], [0.65]]},
        {Setting(): [[0.6, 0.7], [0.7, 0.6, 0.6]], FLOAT: [[0.5, 0.6], [0.6, 0.6, 0.7]]},
        {Setting(): [[0.6, 0.7], [0.7, 0.6]], FLOAT: [[0.5, 0.6, 0.5], [0.6, 0.6, 0.7]]},
        {Setting(): [[0.6, 0.7]], FLOAT: [[0.5, 0.65]]},
    ],
    ids=["one seed", "other seeds on one task", "other seeds of one row", "one task"],
)
def test_data_that_have_no_model(lines: dict[Setting, list[list[float]]]) -> None:
    table = repetitions(lines, paired=True)
    assert mixed([rows_of(table)], MARGIN) == [None]


def test_holm_adjusts_over_the_models_of_the_table() -> None:
    rng = np.random.default_rng(1)
    lines = {Setting(bits=bits): (0.6 + rng.normal(0, 0.01, (6, 3))).tolist() for bits in (1, 2, 4)}
    table = repetitions(lines | {FLOAT: (0.6 + rng.normal(0, 0.01, (6, 3))).tolist()}, paired=True)
    pairs = [(row, table.rows[-1]) for row in table.rows[:-1]]
    found = [c.mixed for c in compare(table, pairs, MARGIN)]
    p = sorted((m.p, m.p_holm) for m in found if m is not None)
    assert len(p) == 3
    assert p[0][1] == pytest.approx(min(1, 3 * p[0][0]))
