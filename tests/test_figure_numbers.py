"""Numbers in figures, compared with plain Python; those of curves are in test_figure_curves.py."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation

from petl_bench.data import manifests
from petl_bench.report.figures import figures
from petl_bench.report.pairs import by_width
from petl_bench.report.pareto import pareto
from petl_bench.report.tables import tabulate
from petl_bench.types import ResultRow
from tests.test_figures import MARGIN, drawn, points, quantizers, store

GROUPS = {
    "natural": ["digits"],
    "specialized": ["surfaces"],
    "structured": ["sprites_loc", "sprites_ori", "shapes_count"],
}


def seeds_of(rows: Iterable[ResultRow], groups: dict[str, list[str]]) -> list[float]:
    """Mean of groups in percent for each seed, by plain Python."""
    held = {(row.seed, row.task): row.acc for row in rows}
    return [
        100
        * statistics.mean(statistics.mean(held[seed, task] for task in tasks) for tasks in groups.values())
        for seed in sorted({seed for seed, _ in held})
    ]


def close(found: Iterable[tuple[float, float]], expected: Iterable[tuple[float, float]]) -> bool:
    return np.allclose(np.array(list(found)), np.array(list(expected)), rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_pareto_front(sizes: list[tuple[float, float]]) -> None:
    front = pareto(sizes)
    undominated = {
        (x, y)
        for x, y in sizes
        if not any(u <= x and v >= y and (u, v) != (x, y) for u, v in sizes)
    }  # fmt: skip
    assert [sizes[index] for index in front] == sorted(undominated)
    assert all(sizes.index(sizes[index]) == index for index in front)


def test_accuracy_against_bytes() -> None:
    rows = store("pocket")
    figure = drawn(rows)["pocket-fixed-accuracy-bytes"]
    sheet = figure.draw()
    found = points(sheet)
    names = {"linear": ("linear", 32)} | {
        f"{name} h16, {bits} bit{'s' * (bits > 1)}": (name, bits)
        for name in ("adaptformer", "lora")
        for bits in (1, 4, 32)
    }
    assert set(found) == set(names)
    expected = {}
    for name, (adapter, bits) in names.items():
        own = [row for row in rows if (row.adapter, row.bits) == (adapter, bits)]
        values = seeds_of(own, GROUPS)
        assert len(values) == 3
        sizes = [
            statistics.mean(r.bytes_file for r in own if r.task == task) for task in {r.task for r in own}
        ]
        expected[name] = (statistics.mean(sizes), statistics.mean(values))
        assert close(found[name], [expected[name]])
        (part,) = [part for part in sheet.axes[0].containers if part.get_label() == name]
        (bar,) = part.lines[2][0].get_segments()
        spread = statistics.stdev(values)
        assert close(bar, [(expected[name][0], expected[name][1] + sign * spread) for sign in (-1, 1)])
    front = {
        name for name, (x, y) in expected.items() if not any(u <= x and v > y for u, v in expected.values())
    }
    (line,) = [line for line in sheet.axes[0].get_lines() if line.get_label() == "Pareto front"]
    key = [text.get_text() for legend in sheet.legends for text in legend.get_texts()]
    assert key == ["linear", "adaptformer", "lora", "Pareto front", "1", "4", "32"]
    corners = line.get_xydata()
    on_it = {name for name, point in expected.items() if np.isclose(corners, point, atol=0).all(axis=1).any()}
    assert on_it >= front
    assert all(name in figure.description for name in list(front)[:3])
    assert sheet.axes[0].get_xscale() == "log"
    ticks = [text.get_text() for text in sheet.axes[0].get_xticklabels()]
    assert len(ticks) >= 3
    assert all(re.fullmatch(r"[0-9.]+ k?B", tick) for tick in ticks)
    assert [float(tick.split()[0]) * 1000 for tick in ticks] == list(sheet.axes[0].get_xticks())


@pytest.mark.parametrize(("count", "named"), [(10, r"h16, \d+ bits?"), (11, r"a\d+ h16, \d+ bits?")])
def test_points_of_more_methods_than_marks_tell_apart_are_named_in_full(count: int, named: str) -> None:
    lora = [row for row in store("pocket") if row.adapter == "lora"]
    rows = [replace(row, adapter=f"a{number}") for number in range(count) for row in lora]
    sheet = drawn(rows)["pocket-fixed-accuracy-bytes"].draw()
    texts = [text.get_text() for text in sheet.findobj(Annotation)]
    names = [text for text in texts if not text.isdecimal()]
    assert names
    assert all(re.fullmatch(named, text) for text in names)
    assert (len(texts) > len(names)) == (count > 10)  # of many methods, numbers say which is which


def test_where_points_crowd_a_second_panel_shows_them_with_numbers() -> None:
    lora = [row for row in store("pocket") if row.adapter == "lora" and row.bits == 1]
    rows = [
        replace(row, adapter=f"a{number}", acc=row_acc(number), bytes_file=1000 * number)
        for number in range(1, 13)
        for row in lora
    ]
    sheet = drawn(rows)["pocket-fixed-accuracy-bytes"].draw()
    upper, lower = sheet.axes
    (low, high), (bottom, top) = lower.get_ylim(), upper.get_ylim()
    assert bottom < low < 90.125
    assert 91 < high < top
    assert high - low < (top - bottom) / 2
    (key,) = [held for held in sheet.legends if len(held.get_texts()) > 11]
    numbered = dict(text.get_text().split() for text in key.get_texts() if text.get_text()[0].isdecimal())
    assert sorted(numbered.values()) == sorted(f"a{number}" for number in range(1, 13))
    shown = {numbered[text.get_text()] for text in lower.findobj(Annotation)}
    assert shown == {f"a{number}" for number in range(5, 13)}  # between 90 and 91 %


def row_acc(number: int) -> float:
    """Four methods that are far apart, and eight between 90 and 91 %."""
    return 0.1 * number if number < 5 else 0.90 + 0.00125 * (number - 4)


NAMES = {
    "lloyd_max": ("lloyd_max", 0.0),
    "minmax": ("minmax", 0.0),
    "minmax, rate_weight 0.5": ("minmax", 0.5),
}


def of_setting(rows: Iterable[ResultRow], text: str) -> list[ResultRow]:
    """Rows of a quantizer and rate weight, and those of 32 bits."""
    return [row for row in rows if row.bits == 32 or (row.quantizer, row.rate_weight) == NAMES[text]]


def test_differences_by_task() -> None:
    rows = store("vtab")
    figure = drawn(rows)["vtab-fixed-task-differences"]
    axes = figure.draw().axes[0]
    known = sorted({m.position: m for m in manifests().values() if m.suite == "vtab"}.items())
    order = [manifest.name for _, manifest in known]
    assert [text.get_text() for text in axes.get_yticklabels()] == [name[5:] for name in order]
    assert axes.yaxis_inverted()
    found = {
        line.get_label(): line.get_xdata() for line in axes.get_lines() if "minus" in str(line.get_label())
    }
    assert len(found) == 4
    for name, values in found.items():
        adapter, hidden = re.fullmatch(r"(\w+) h(\d+): 1 bit minus 32", name).groups()
        acc = {(r.task, r.bits): r.acc for r in rows if (r.adapter, r.hidden) == (adapter, int(hidden))}
        assert np.allclose(values, [100 * (acc[task, 1] - acc[task, 32]) for task in order])
        assert f"{name} {sum(abs(value) <= 1 for value in values)} of 19" in figure.description
    (band,) = axes.patches
    assert (band.get_x(), band.get_width()) == (-1, 2)


def test_differences_are_those_of_the_comparisons() -> None:
    rows = quantizers("bits=1,2,4,32", "hidden=16", "seed=0")
    axes = drawn(rows)["pocket-fixed-task-differences"].draw().axes[0]
    found = {line.get_label(): line.get_xdata() for line in axes.get_lines() if "minus" in line.get_label()}
    assert set(found) == {f"adaptformer h16, {text}: 1 bit minus 32" for text in NAMES}
    tasks = {row.task for row in rows}
    for text in NAMES:
        acc = {(r.task, r.bits): r.acc for r in of_setting(rows, text)}
        expected = sorted(100 * (acc[task, 1] - acc[task, 32]) for task in tasks)
        assert np.allclose(sorted(found[f"adaptformer h16, {text}: 1 bit minus 32"]), expected)
    tables, _ = tabulate(rows, manifests())
    assert not [figure for figure in figures(tables, MARGIN) if "differences" in figure.name]
    (pair,) = [
        (few, most) for few, most in by_width(tables[0]) if few.key["bits"] == 4 and few.key["rate_weight"]
    ]
    (alone,) = [f for f in figures(tables, MARGIN, None, [[pair]]) if "differences" in f.name]
    assert "adaptformer h16, minmax, rate_weight 0.5: 4 bits minus 32 0 of 5" in alone.description
