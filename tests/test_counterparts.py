"""Selection of the rows of a table that are compared, of their counterparts, and of ranked rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from petl_bench.report.statistics import MOST_ROWS, ranking
from tests.test_statistics import (
    FLOAT,
    MARGIN,
    OFFSETS,
    Setting,
    compare_widths,
    compared,
    random_lines,
    table_of,
)


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
    one, two = compare_widths(table, MARGIN)
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
        tuple(c.row.key[n] for n in names): tuple(c.against.key[n] for n in names)
        for c in compare_widths(table, 0.1)
    }
    assert found == {
        ("adaptformer", 8, 1, "raw"): ("adaptformer", 8, 8, "raw"),
        ("adaptformer", 16, 1, "raw"): ("adaptformer", 16, 32, "raw"),
        ("adaptformer", 16, 1, "coded"): ("adaptformer", 16, 32, "coded"),
        ("adaptformer", 16, 8, "raw"): ("adaptformer", 16, 32, "raw"),
    }


def test_incomplete_rows_take_no_part() -> None:
    lines = random_lines(6, [1, 2, 4, 32])
    whole = table_of({**lines, FLOAT: [0.5] * 6})
    holed: dict[Setting, Sequence[float | None]] = {**lines, FLOAT: [0.5] * 6}
    holed[Setting(bits=2, adapter="a0")] = [*lines[Setting(bits=2, adapter="a0")][:5], None]
    holed[Setting(bits=32, adapter="a0")] = [None, *lines[Setting(bits=32, adapter="a0")][1:]]
    found = compare_widths(table_of(holed), MARGIN)
    assert [(c.row.key["bits"], c.against.key["bits"]) for c in found] == [(1, 4)]
    ranked, all_ranked = ranking(table_of(holed)), ranking(whole)
    assert ranked is not None
    assert all_ranked is not None
    assert len(all_ranked.rows) == 5
    assert [row.key["bits"] for row in ranked.rows] == [1, 4, 32]


def test_a_row_that_lacks_a_seed_takes_part() -> None:
    table = table_of(random_lines(6, [1, 32]))
    assert any(row.mean_of_tasks.n < max(s.n for s in row.tasks.values()) for row in table.rows)
    assert len(compare_widths(table, MARGIN)) == 1


def test_nothing_to_compare() -> None:
    assert compare_widths(table_of({FLOAT: [0.5], Setting(): [0.4]}), MARGIN) == []
    assert compare_widths(table_of({FLOAT: [0.5] * 6}), MARGIN) == []
    with pytest.raises(ValueError, match="above 0"):
        compare_widths(table_of({FLOAT: [0.5] * 6}), 0.0)


def test_rankings_that_there_are_not() -> None:
    assert ranking(table_of(random_lines(6, [1, 32]))) is None
    assert ranking(table_of(random_lines(1, [1, 2, 32]))) is None
    assert ranking(table_of(random_lines(2, [1], MOST_ROWS + 1), OFFSETS[:1])) is None
    assert ranking(table_of(random_lines(2, [1], MOST_ROWS), OFFSETS[:1])) is not None


@pytest.mark.parametrize("tasks", [6, 15])
def test_equal_rows_have_equal_ranks(tasks: int) -> None:
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
