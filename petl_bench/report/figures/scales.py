"""Logarithmic axes with ticks in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

ROUND = [(1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)]
"""Multiples of powers of ten at which ticks may stand, from coarse to fine."""
MOST = 9
"""Largest number of ticks that fit on an axis."""


def byte_axis(axes: Axes, values: Sequence[float]) -> None:
    """Set up a logarithmic x axis of bytes with ticks such as `500 B` and `2 kB`."""
    low, high = _limits(values)
    candidates = [_multiples(low, high, 10, multiples) for multiples in ROUND]
    _ticks(axes, low, high, _enough(low, high, candidates, 4), in_bytes)


def doubling_axis(axes: Axes, values: Sequence[float]) -> None:
    """Set up a logarithmic x axis with ticks at powers of two."""
    low, high = _limits(values)
    _ticks(
        axes, low, high, _enough(low, high, [_multiples(low, high, 2, (1,))], 3), lambda value: f"{value:g}"
    )


def listed_axis(axes: Axes, values: Sequence[float]) -> None:
    """Set up a logarithmic x axis with ticks at the values themselves."""
    low, high = _limits(values)
    _ticks(axes, low, high, sorted(set(values)), lambda value: f"{value:g}")


def in_bytes(count: float) -> str:
    """Return bytes as text with three digits, `480 B`, `4.11 kB`, `1.2 MB`; 1 kB is 1000 bytes."""
    for unit, size in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)]:
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count:.3g} B"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high / low) ** 0.06 if high > low else 1.3
    return low / room, high * room


def _multiples(low: float, high: float, base: int, multiples: Iterable[float]) -> list[float]:
    powers = range(math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 1)
    return sorted(
        tick for power in powers for m in multiples if low <= (tick := m * float(base) ** power) <= high
    )


def _enough(low: float, high: float, candidates: Sequence[list[float]], least: int) -> list[float]:
    """Return the first candidate with `least` ticks, or evenly spaced ticks if none has so many."""
    even = [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    return next((ticks for ticks in candidates if len(ticks) >= least), even)


def _ticks(axes: Axes, low: float, high: float, ticks: Sequence[float], text: Callable[[float], str]) -> None:
    apart = math.log(high / low) / MOST
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= apart:
            kept.append(tick)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
