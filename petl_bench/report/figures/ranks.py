"""Critical-difference diagram of mean ranks.

Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Sheet

from petl_bench.report.figures.style import GREY, WIDTH, Figure, brief, listed, sheet_axes, wrapped
from petl_bench.report.paired import LEVEL, ROUGH
from petl_bench.report.statistics import MOST_ROWS, Ranking

FEWEST = 3
"""Smallest number of rows that are ranked; MOST_ROWS is the largest."""


def critical_difference(ranking: Ranking, tasks: int, stem: str, context: str) -> Figure | None:
    """Draw mean ranks (1 is best) on an axis, with bars that join rows without a significant difference.

    Args:
        ranking: the ranking of the rows.
        tasks: number of tasks that the rows are ranked over.
        stem: first part of the file name.
        context: settings that all rows have in common.

    Returns:
        The figure; None with fewer than FEWEST or more than MOST_ROWS rows, or without mean ranks.
    """
    labels, ranks = list(ranking.labels), [float(rank) for rank in ranking.mean_ranks]
    if not FEWEST <= len(labels) <= MOST_ROWS or not np.isfinite(ranks).all():
        return None
    p_values = ranking.p_holm.loc[labels, labels].to_numpy(dtype=float)

    def paint(sheet: Sheet) -> None:
        _paint(sheet, labels, ranks, np.nan_to_num(p_values, nan=1.0), f"{context}; {test}")

    # The smallest p of a two-sided signed-rank test is 2 / 2^tasks; Holm multiplies it by the pairs.
    coarse = math.comb(len(labels), 2) * 2 / 2**tasks >= LEVEL
    test = (
        f"{tasks} tasks are too few to show differences among {len(labels)}: one bar joins all; "
        if coarse
        else ""
    )
    test += f"Friedman p = {ranking.friedman_p:.2g}"
    test += f" (approximate: {tasks} tasks)" if tasks < ROUGH else ""
    order = [f"{brief(labels[index])} ({ranks[index]:.2f})" for index in np.argsort(ranks, kind="stable")]
    return Figure(
        f"{stem}-critical-difference",
        f"Mean ranks over tasks: {context}",
        f"Mean ranks over tasks, where 1 is best, of {len(labels)} methods: {listed(order)}. Bars join "
        f"methods without a significant difference (pairwise Wilcoxon tests with Holm's correction, level "
        f"{LEVEL}); {test}.",
        paint,
    )


def _paint(sheet: Sheet, labels: Sequence[str], ranks: Sequence[float], p_values: Any, heading: str) -> None:
    from scikit_posthocs import critical_difference_diagram  # importing it takes seconds

    count = len(labels)
    axes = sheet_axes(sheet, heading, 1.0)
    axes.grid(False)
    # Numbers stand for the labels, because shortened labels may be equal.
    artists = critical_difference_diagram(
        dict(enumerate(ranks)),
        pd.DataFrame(p_values, index=range(count), columns=range(count)),
        alpha=LEVEL,
        ax=axes,
        label_fmt_left="{label}",
        label_fmt_right="{label}",
        elbow_props={"color": GREY, "linewidth": 0.8, "clip_on": False},
        marker_props={"color": "black", "s": 18, "clip_on": False},
        crossbar_props={"color": "black", "linewidth": 2.2, "marker": "o", "markersize": 3.5},
    )
    low, high = math.floor(min(ranks)), max(math.ceil(max(ranks)), math.floor(min(ranks)) + 1)
    tall = 1
    for text, elbow in zip(artists["labels"], artists["elbows"], strict=True):
        number, right = int(text.get_text()), text.get_ha() == "left"
        lines = _beside(labels[number], ranks[number], right)
        tall = max(tall, len(lines))
        edge, room = (high, 0.02) if right else (low, -0.02)
        elbow.set_xdata([edge, ranks[number], ranks[number]])
        text.set(text="\n".join(lines), x=edge + room * (high - low), color="black", linespacing=1.0)
    lowest = min(text.get_position()[1] for text in artists["labels"])
    axes.set(xlim=(low, high), ylim=(lowest - 0.7, 0.3), xlabel="mean rank over tasks (1 is best)")
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(low, high + 1, math.ceil((high - low) / 8)))
    rows = min(-lowest + 1, 80)  # tests that are far from transitive can need very many bars
    sheet.set_figheight(sheet.get_figheight() - 0.4 + (0.09 + 0.12 * tall) * rows)


def _beside(label: str, rank: float, right: bool) -> list[str]:
    """Return the text lines of a label, with its rank on the side of the diagram."""
    lines = wrapped(brief(label), 72 * WIDTH * 0.27)
    at = 0 if right else -1
    lines[at] = f"{rank:.2f}  {lines[at]}" if right else f"{lines[at]}  {rank:.2f}"
    return lines
