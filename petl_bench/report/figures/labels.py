"""Labels of points, placed where they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from petl_bench.report.figures.style import GREY, TEXT, lay_out, width

DIRECTIONS = [(-1, 1), (0, 1), (-1, 0), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
DISTANCES = (5.0, 15.0)
"""Distances of a text from its point, in points (1/72 inch); at the second one a line joins them."""
MARK = 4.0
"""Half the side of a marker, in points."""

Spot = tuple[float, float, str]
"""x and y in data coordinates, and a text."""


def place(axes: Axes, wanted: Sequence[Spot], strokes: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Write texts beside their points; a text for which there is no free place is left out.

    Args:
        axes: the axes that hold the points.
        wanted: points and texts, the most important first.
        strokes: lines in data coordinates that no text may cover; a single point stands for a marker.
    """
    lay_out(axes.figure)  # type: ignore[arg-type] # which places are free depends on the final layout
    pixels = axes.figure.dpi / 72
    drawn = [axes.transData.transform(stroke) for stroke in strokes]
    marks = [_box(point, MARK, MARK, pixels) for points in drawn for point in points]
    lines = [Path(points) for points in drawn if len(points) > 1]
    for x, y, text in wanted:
        point, half = axes.transData.transform((x, y)), (width(text) / 2 + 1, 0.6 * TEXT)
        for distance, direction in product(DISTANCES, DIRECTIONS):
            shift = _shift(distance, direction, half)
            box = _box(point + pixels * shift, *half, pixels)
            if _inside(box, axes.bbox) and not box.count_overlaps(marks) and not _crossed(box, lines):
                leader = distance > DISTANCES[0]
                _write(axes, (x, y), shift, text, leader)
                marks.append(box)
                lines += [Path([point, point + pixels * shift])] if leader else []
                break


def _shift(distance: float, direction: tuple[int, int], half: tuple[float, float]) -> np.ndarray:
    """Return the offset of a text's centre from its point, in points; corners may be nearer than sides."""
    near = distance * (2 / 3 if all(direction) else 1)
    return np.array(direction) * (np.array(half) + near)


def _write(axes: Axes, point: tuple[float, float], shift: np.ndarray, text: str, leader: bool) -> None:
    arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": MARK}
    axes.annotate(
        text,
        point,
        (shift[0], shift[1]),
        textcoords="offset points",
        ha="center",
        va="center",
        arrowprops=arrow if leader else None,
    )


def _box(centre: np.ndarray, half_width: float, half_height: float, pixels: float) -> Bbox:
    """Return a box around a centre in pixels, from half its sides in points."""
    x, y = centre
    across, up = half_width * pixels, half_height * pixels
    return Bbox([[x - across, y - up], [x + across, y + up]])


def _inside(box: Bbox, axes: Bbox) -> bool:
    return bool(axes.x0 <= box.x0 and box.x1 <= axes.x1 and axes.y0 <= box.y0 and box.y1 <= axes.y1)


def _crossed(box: Bbox, lines: Sequence[Path]) -> bool:
    return any(line.intersects_bbox(box, filled=False) for line in lines)
