"""`report --power`: against statsmodels, simulations and formulas, and as the command prints it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from petl_bench.config import plan
from petl_bench.report.power import CHANCE, power, reach_of
from petl_bench.report.statistics import compare
from petl_bench.store import Store
from tests.conftest import error_of, quickly
from tests.made import make_row
from tests.test_statistics import FLOAT, MARGIN, Setting
from tests.test_verdicts import repetitions, rows_of


@pytest.mark.parametrize(("tasks", "family"), [(3, 1), (5, 1), (5, 63), (19, 4), (19, 63), (50, 10)])
def test_the_smallest_difference_is_that_of_statsmodels(tasks: int, family: int) -> None:
    """With one seed and a known deviation of task means it is the power of a plain paired t-test."""
    solver = pytest.importorskip("statsmodels.stats.power").TTestPower()
    size = solver.solve_power(nobs=tasks, alpha=0.05 / family, power=0.8, alternative="two-sided")
    found = reach_of(tasks, 1, 0.02, None, family).other_tasks
    assert found is not None
    assert found.difference == pytest.approx(0.02 * float(size), rel=1e-3)
    assert found.interval == pytest.approx(stats.t.ppf(0.975, tasks - 1) * 0.02 / tasks**0.5)


def test_the_error_is_that_of_the_model() -> None:
    # By hand: between 2, within 3 points, 4 tasks, 9 seeds: error^2 = 4 / 4 + 9 / 36 = 1.25 of 3 degrees over
    # other tasks; 9 / 36 = 0.25 of 4 * 8 = 32 degrees on these.
    design = reach_of(4, 9, 0.02, 0.03, 1)
    assert design.other_tasks is not None
    assert design.these_tasks is not None
    assert design.other_tasks.interval == pytest.approx(0.01 * 1.25**0.5 * stats.t.ppf(0.975, 3))
    assert design.these_tasks.interval == pytest.approx(0.005 * stats.t.ppf(0.975, 32))


@pytest.mark.parametrize("family", [1, 8])
def test_simulated_tests_show_what_is_promised_as_often(family: int) -> None:
    """20,000 draws of the model of 6 tasks and 3 seeds; three standard errors of a share are 0.0085."""
    tasks, seeds, between, within = 6, 3, 0.01, 0.02
    design = reach_of(tasks, seeds, between, within, family)
    rng = np.random.default_rng(family)
    drawn = rng.normal(0, between, (20_000, tasks, 1)) + rng.normal(0, within, (20_000, tasks, seeds))
    means = drawn.mean(axis=2)
    seed_error = (drawn.var(axis=2, ddof=1).mean(axis=1) / (tasks * seeds)) ** 0.5
    noise = rng.normal(0, within / (tasks * seeds) ** 0.5, 20_000)  # independent of the variance
    sides = [
        (design.other_tasks, means.mean(axis=1), means.std(axis=1, ddof=1) / tasks**0.5, tasks - 1),
        (design.these_tasks, noise, seed_error, tasks * (seeds - 1)),
    ]
    for reach, mean, error, freedom in sides:
        assert reach is not None
        differs = 2 * stats.t.sf(np.abs(mean + reach.difference) / error, freedom) * family < 0.05
        assert differs.mean() == pytest.approx(CHANCE, abs=0.009)
        above = stats.t.sf((mean + reach.margin) / error, freedom) * family < 0.05
        below = stats.t.cdf((mean - reach.margin) / error, freedom) * family < 0.05
        assert CHANCE - 0.009 < (above & below).mean() < CHANCE + 0.03


STDS = st.floats(0.001, 0.1)


@settings(max_examples=25, deadline=None)
@given(STDS, STDS, st.integers(3, 12), st.integers(2, 6), st.integers(1, 20))
def test_more_tasks_more_seeds_and_fewer_comparisons_show_smaller_differences(
    between: float, within: float, tasks: int, seeds: int, family: int
) -> None:
    design = reach_of(tasks, seeds, between, within, family)
    less = [(tasks + 1, seeds, family), (tasks, seeds + 1, family), (tasks, seeds, max(1, family - 1))]
    for other in less:
        better = reach_of(other[0], other[1], between, within, other[2])
        for side in ("other_tasks", "these_tasks"):
            own, smaller = getattr(design, side), getattr(better, side)
            assert smaller.difference <= own.difference * (1 + 1e-9)
            assert smaller.margin <= own.margin * (1 + 1e-9)
    double = reach_of(tasks, seeds, 2 * between, 2 * within, family)
    assert design.other_tasks is not None
    assert double.other_tasks is not None
    assert double.other_tasks.margin == pytest.approx(2 * design.other_tasks.margin)
    assert design.other_tasks.interval < design.other_tasks.difference


@pytest.mark.parametrize(
    ("tasks", "family", "ranks"),
    [(4, 1, "neither"), (5, 1, "equivalence"), (6, 1, "both"), (6, 2, "equivalence"), (6, 4, "neither")],
)
def test_what_ranks_can_show_is_what_the_sentences_say(tasks: int, family: int, ranks: str) -> None:
    """1 / 2^tasks one-sided and twice that two-sided, times the comparisons, is below 0.05."""
    assert reach_of(tasks, 3, 0.01, 0.01, family).ranks == ranks


def test_deviations_are_those_of_the_comparisons() -> None:
    rng = np.random.default_rng(0)
    lines = {
        Setting(bits=bits): (0.5 + rng.normal(0, 0.01 * bits, (5, 1)) + rng.normal(0, 0.01, (5, 3))).tolist()
        for bits in (1, 2, 4)
    }
    table = repetitions(lines | {FLOAT: np.full((5, 3), 0.5).tolist()}, paired=True)
    found = compare(table, [(row, table.rows[-1]) for row in table.rows[:-1]], MARGIN)
    reach = power(found)
    assert reach is not None
    models = [c.mixed for c in found if c.mixed is not None]
    assert [(d.between, d.within) for d in reach.own] == [(m.between, m.within) for m in models]
    assert all((d.tasks, d.seeds) == (5, 3) for d in reach.own)
    assert {d.between for d in reach.designs} == {sorted(m.between for m in models)[1]}
    assert [(d.tasks, d.seeds) for d in reach.designs] == [
        (t, s) for t in (5, 10, 20, 50) for s in (3, 5, 10)
    ]


def test_with_one_seed_only_tasks_are_counted() -> None:
    lines = {Setting(): [[0.61], [0.68], [0.8]], FLOAT: [[0.6], [0.7], [0.75]]}
    reach = power(compare(table := repetitions(lines, paired=True), [rows_of(table)], MARGIN))
    assert reach is not None
    (own,) = reach.own
    assert own.between == pytest.approx(np.std([0.01, -0.02, 0.05], ddof=1))
    assert own.within is own.these_tasks is None
    assert [(d.tasks, d.seeds) for d in reach.designs] == [(3, 1), (10, 1), (20, 1), (50, 1)]
    assert power([]) is None


def test_the_seeds_are_those_that_both_rows_have() -> None:
    """Unpaired seeds have no mixed model; three of one row and one of the other are one."""
    lines = {Setting(): [[0.61, 0.6, 0.6], [0.68, 0.7, 0.7]], FLOAT: [[0.6], [0.7]]}
    reach = power(compare(table := repetitions(lines, paired=True), [rows_of(table)], MARGIN))
    assert reach is not None
    assert [design.seeds for design in reach.own] == [1]
    assert {design.seeds for design in reach.designs} == {1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("power")
    rng = np.random.default_rng(0)
    tasks = "task=digits,surfaces,sprites_loc,sprites_ori,shapes_count"
    runs = plan(
        ["sweep=none", tasks, "protocol=fixed", "adapter=linear,lora", "bits=1,32", "seed=0,1,2", "scale=1"]
    )
    for spec in runs.runs:
        acc = 0.7 - 0.02 / spec.bits + round(float(rng.normal(0, 0.01)), 3)
        Store(root).put(spec, make_row(spec, acc), b"adapter")
    return root


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_every_form_has_the_tables(form: str, store: Path) -> None:
    plain = quickly("report", "--store", store, "--format", form).stdout
    assert "Power: what" not in plain
    shown = quickly("report", "--store", store, "--format", form, "--power").stdout
    assert "Power: what 5 tasks and 3 seeds could have shown, in points" in shown
    assert "Power: what other numbers of tasks and seeds can show" in shown
    assert "is 1 bit worse than 32 bits?" in shown


def test_json_has_the_power_of_each_comparison(store: Path) -> None:
    content = json.loads(quickly("report", "--store", store, "--format", "json", "--power").stdout)
    (held,) = content["power"]
    (compared,) = content["comparisons"]
    assert (held["suite"], held["comparisons"], held["chance"]) == ("pocket", 1, 0.8)
    (own,) = held["own"]
    assert own["within"] == compared["mixed"]["within"]
    assert own["other_tasks"]["interval"] == pytest.approx(
        (compared["mixed"]["high"] - compared["mixed"]["low"]) / 2
    )
    assert len(held["designs"]) == 12
    assert "power" not in json.loads(quickly("report", "--store", store, "--format", "json").stdout)


def test_where_nothing_is_compared_it_is_refused(store: Path) -> None:
    options = ("report", "--store", store, "--power", "--filter", "adapter=linear")
    assert "--power states what comparisons could have shown" in error_of(quickly(*options))
    assert "the other formats have power" in quickly(*options[:-2], "--format", "csv").stderr
