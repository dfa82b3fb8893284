"""Numbers of curves against bits, hidden size and shots, compared with plain Python."""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import replace

import pytest

from petl_bench.types import ResultRow
from tests.test_figure_numbers import GROUPS, NAMES, close, of_setting, seeds_of
from tests.test_figures import drawn, points, quantizers, rows_for, store


def test_accuracy_against_bits() -> None:
    rows = [row for row in store("pocket") if row.adapter != "linear"]
    found = points(drawn(rows)["pocket-fixed-accuracy-bits"].draw())
    assert set(found) == {"adaptformer h16", "lora h16"}
    for name, curve in found.items():
        own = [[r for r in rows if r.adapter == name[:-4] and r.bits == bits] for bits in (1, 4, 32)]
        assert close(
            curve, [(held[0].bits_per_weight, statistics.mean(seeds_of(held, GROUPS))) for held in own]
        )


def test_a_curve_of_bits_keeps_to_its_quantizer_and_rate_weight() -> None:
    rows = quantizers("bits=1,4,32", "hidden=16", "seed=0")
    found = points(drawn(rows)["pocket-fixed-accuracy-bits"].draw())
    assert set(found) == {f"adaptformer h16, {text}" for text in NAMES}
    for text in NAMES:
        by_bits = [[r for r in of_setting(rows, text) if r.bits == bits] for bits in (1, 4, 32)]
        expected = sorted((held[0].bits_per_weight, seeds_of(held, GROUPS)[0]) for held in by_bits)
        assert len(expected) == 3
        assert close(found[f"adaptformer h16, {text}"], expected)


def scales_of(*scales: float) -> list[ResultRow]:
    return [
        replace(row, scale=scale, acc=row.acc - scale / 50)
        for row in rows_for("adapter=adaptformer", "bits=1,4,32", "hidden=16", "seed=0") for scale in scales
    ]  # fmt: skip


def test_a_curve_of_bits_keeps_to_its_scale() -> None:
    rows = scales_of(0.1, 1.0, 10.0)
    found = points(drawn(rows)["pocket-fixed-accuracy-bits"].draw())
    assert set(found) == {f"adaptformer h16, scale {scale}" for scale in (0.1, 1.0, 10.0)}
    for name, curve in found.items():
        own = [r for r in rows if name.endswith(f" {r.scale}")]
        by_bits = [[r for r in own if r.bits == bits] for bits in (1, 4, 32)]
        assert close(curve, [(held[0].bits_per_weight, seeds_of(held, GROUPS)[0]) for held in by_bits])


def test_32_bits_of_another_scale_are_the_first() -> None:
    rows = [row for row in scales_of(0.1, 1.0, 10.0) if row.bits < 32 or row.scale > 0.5]
    found = points(drawn(rows)["pocket-fixed-accuracy-bits"].draw())
    for scale, whole in [(0.1, 1.0), (1.0, 1.0), (10.0, 10.0)]:
        (expected,) = seeds_of([r for r in rows if r.bits == 32 and r.scale == whole], GROUPS)
        assert found[f"adaptformer h16, scale {scale}"][-1][1] == pytest.approx(expected)


def test_many_variants_are_several_figures() -> None:
    rows = [
        replace(row, scale=scale)
        for row in rows_for("adapter=lora", "bits=1,32", "hidden=1,2,4,8", "seed=0") for scale in (1, 2, 3)
    ]  # fmt: skip
    found = [drawn(rows)[f"pocket-fixed-accuracy-bits{end}"] for end in ("", "-2")]
    assert [len(points(figure.draw())) for figure in found] == [10, 2]
    assert [figure.title[-8:] for figure in found] == ["(1 of 2)", "(2 of 2)"]


def test_a_curve_at_a_budget_keeps_to_its_quantizer_and_rate_weight() -> None:
    rows = quantizers("bits=1,2,4,32", "hidden=2,4,8,16", "seed=0")
    found = points(drawn(rows)["pocket-fixed-accuracy-hidden"].draw())
    seen = set()
    for name, curve in found.items():
        text, number, unit = re.fullmatch(r"adaptformer, (.+), adapter ≤ ([0-9.]+) (k?B)", name).groups()
        seen.add(text)
        budget = float(number) * (1000 if unit == "kB" else 1)
        expected = []
        for hidden in (2, 4, 8, 16):
            own = [r for r in of_setting(rows, text) if r.hidden == hidden]
            fitting = {r.bytes_adapter for r in own if budget / 2 < r.bytes_adapter <= budget}
            if fitting:
                chosen = [r for r in own if r.bytes_adapter == max(fitting)]
                expected.append((hidden, seeds_of(chosen, GROUPS)[0]))
        assert close(curve, expected)
    assert seen == set(NAMES)


def test_accuracy_against_hidden_size_at_a_budget() -> None:
    rows = store("grid")
    curves = points(drawn(rows)["pocket-fixed-accuracy-hidden"].draw())
    assert curves
    budgets = set()
    for name, curve in curves.items():
        adapter, text = re.fullmatch(r"(\w+), adapter ≤ ([0-9.]+ k?B)", name).groups()
        budget = float(text.split()[0]) * (1000 if text.endswith("kB") else 1)
        budgets.add(budget)
        expected = []
        for hidden in (1, 2, 4, 8, 16, 32, 64):
            own = [r for r in rows if (r.adapter, r.hidden) == (adapter, hidden)]
            fitting = {r.bytes_adapter for r in own if budget / 2 < r.bytes_adapter <= budget}
            if fitting:
                chosen = [r for r in own if r.bytes_adapter == max(fitting)]
                expected.append((hidden, statistics.mean(seeds_of(chosen, GROUPS))))
        assert len(expected) > 1
        assert close(curve, expected)
    assert 1 <= len(budgets) <= 3
    assert all(large >= 2 * small for small, large in itertools.pairwise(sorted(budgets)))
    # No other budget would compare more hidden sizes than the best one of these.
    sizes = {(r.adapter, r.hidden, r.bytes_adapter) for r in rows if r.hidden}

    def compared(budget: float) -> int:
        fitting = {(adapter, hidden) for adapter, hidden, size in sizes if budget / 2 < size <= budget}
        counts = [sum(name == adapter for name, _ in fitting) for adapter in ("adaptformer", "lora")]
        return sum(count for count in counts if count > 1)

    def rounded(size: int) -> int:
        step = 10 ** max(len(str(size)) - 2, 0)
        return -(-size // step) * step

    assert max(map(compared, budgets)) == max(compared(rounded(size)) for _, _, size in sizes)


def test_accuracy_against_shots() -> None:
    rows = [replace(row, recipe=f"recipe{row.shots}") for row in store("shots")]
    figure = drawn(rows)["fgvc-fixed-accuracy-shots"]
    assert "recipe" not in figure.title
    assert "shot," not in figure.title
    groups = {"fgvc": sorted({row.task for row in rows})}
    found = points(figure.draw())
    assert len(found) == 4
    for name, curve in found.items():
        own = [r for r in rows if name.startswith(r.adapter) and f", {r.bits} bit" in name]
        assert close(
            curve,
            [
                (n, statistics.mean(seeds_of([r for r in own if r.shots == n], groups)))
                for n in (1, 2, 4, 8, 16)
            ],
        )


def test_two_recipes_of_the_same_shots_have_figures_of_their_own() -> None:
    rows = [row for row in store("shots") if row.shots < 4 and row.bits == 1]
    both = [*rows, *(replace(row, recipe="other") for row in rows)]
    assert sum(name.endswith("accuracy-shots") for name in drawn(both)) == 2
