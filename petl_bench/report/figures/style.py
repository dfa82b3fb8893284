"""What all figures share: the sheet, its text, colours and marks, keys, axes and files."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from petl_bench.report.columns import printable

T = TypeVar("T")
WIDTH = 6.4
"""Inches: two columns of a paper, or one of a wide page."""
DPI = 200
TEXT = 8.0
"""Points."""
LONGEST = 30
"""Characters of a name in a figure."""
GREY = "#595959"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's without yellow, which is lost on white."""
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
Dashes = Literal["-", "none"] | tuple[float, tuple[float, ...]]
DASHES: list[Dashes] = ["-", (0, (5, 1.8)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1))]
RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "figure.titlesize": TEXT,
    "figure.dpi": DPI,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.6,
    "text.parse_math": False,  # names may hold $, _ and ^
    "svg.fonttype": "path",
    "svg.hashsalt": "petl-bench",
}


@dataclass(frozen=True)
class Figure:
    """One picture, drawn anew each time it is asked for, so that nothing of it stays in memory."""

    name: str
    """For a file name: lower-case letters, digits and hyphens; unique in a report."""
    title: str
    description: str
    """Alternative text: what the axes are and the main reading in numbers."""
    paint: Callable[[Sheet], None] = field(repr=False, compare=False)

    def draw(self) -> Sheet:
        """The picture as matplotlib's objects, laid out."""
        with _house_style():
            sheet = Sheet(figsize=(WIDTH, 4.0), layout="constrained")
            FigureCanvasAgg(sheet)
            self.paint(sheet)
            lay_out(sheet)
            return sheet

    def svg(self) -> str:
        """The same text each time, with letters as paths."""
        metadata = {"Title": printable(self.title), "Description": printable(self.description), "Date": None}
        return self._file("svg", metadata).decode("utf-8")

    def png(self) -> bytes:
        """200 dots an inch, on white."""
        return self._file("png", {})

    def _file(self, form: str, metadata: Mapping[str, str | None]) -> bytes:
        buffer = io.BytesIO()
        with _house_style():
            sheet = self.draw()
            sheet.savefig(buffer, format=form, metadata=metadata)
            sheet.clear()
        return buffer.getvalue()


@contextmanager
def _house_style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        # A letter that the font lacks is drawn as a box; nobody can do anything about it here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def parts(items: Sequence[T], most: int, name: str, context: str) -> list[tuple[Sequence[T], str, str]]:
    """At most so many items a figure, and its name and context; only those of several are numbered."""
    held = [items[start : start + most] for start in range(0, len(items), most)]
    return [
        (
            part,
            name + (f"-{n}" if n > 1 else ""),
            context + (f" ({n} of {len(held)})" if len(held) > 1 else ""),
        )
        for n, part in enumerate(held, start=1)
    ]


@dataclass(frozen=True)
class Look:
    """How a series is drawn: colour and marker say its family, fill and dashes its variant."""

    colour: str
    marker: str
    lightness: float
    """Of the marker's fill: 0 is the colour, 1 white."""
    dashes: Dashes

    def mark(self) -> dict[str, Any]:
        """Arguments of a marker."""
        return {
            "marker": self.marker,
            "markersize": 5.5,
            "markerfacecolor": lightened(self.colour, self.lightness),
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.0,
        }

    def sign(self, line: bool) -> Line2D:
        """What stands beside its name in a key."""
        dashes: Dashes = self.dashes if line else "none"
        return Line2D([], [], color=self.colour, linestyle=dashes, linewidth=1.3, **self.mark())


def looks(families: Sequence[str], variants: Sequence[str]) -> dict[tuple[str, str], Look]:
    """A look for each family and variant; fills are ever lighter, that of the last variant is white."""
    steps = max(len(variants) - 1, 1)
    return {
        (family, variant): Look(
            COLOURS[row % len(COLOURS)],
            MARKERS[row % len(MARKERS)],
            column / steps,
            DASHES[column % len(DASHES)],
        )
        for row, family in enumerate(families)
        for column, variant in enumerate(variants)
    }


def lightened(colour: str, share: float) -> str:
    """A colour mixed with white: 0 is the colour, 1 white."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def sheet_axes(sheet: Sheet, context: str, height: float) -> Axes:
    """Axes under a line that says what the figure is of.

    Args:
        context: what all rows of the figure have in common.
        height: of the axes with their labels, in inches; keys and the heading are added to it.
    """
    sheet.set_size_inches(WIDTH, height)
    _head(sheet, context, 72 * (WIDTH - 0.2))
    axes: Axes = sheet.subplots()
    axes.grid(True)
    return axes


def key_below(sheet: Sheet, signs: Sequence[Artist], names: Sequence[str]) -> None:
    """Signs and names under the axes, in as many columns as fit; the sheet grows by their height."""
    texts = [wrapped(name, 72 * (WIDTH - 1)) for name in names]
    widest = max(width(line) for text in texts for line in text)
    columns = min(len(texts), max(1, int(72 * (WIDTH - 0.2) // (widest + 38))))
    rows = math.ceil(len(texts) / columns)
    sheet.set_figheight(sheet.get_figheight() + 0.17 * rows * max(map(len, texts)))
    sheet.legend(signs, ["\n".join(text) for text in texts], loc="outside lower center", ncols=columns)


def key_right(sheet: Sheet, heading: str, signs: Sequence[Artist], names: Sequence[str]) -> None:
    """Signs and names right of the axes; the sheet grows where they are many."""
    texts = [wrapped(name, 90) for name in names]
    widest = max(width(line) for text in texts for line in text)
    _head(sheet, sheet.get_suptitle(), 72 * (WIDTH - 0.2) - widest - 38)
    sheet.set_figheight(max(sheet.get_figheight(), 0.17 * (sum(map(len, texts)) + 5)))
    sheet.legend(signs, ["\n".join(text) for text in texts], loc="outside right upper", title=heading)


def _head(sheet: Sheet, text: str, room: float) -> None:
    """A heading of so many points' width; the sheet grows or shrinks with its lines."""
    lines = wrapped(text, room)
    before = sheet.get_suptitle().count("\n") + 1 if sheet.get_suptitle() else 0
    sheet.set_figheight(sheet.get_figheight() + 0.15 * (len(lines) - before))
    sheet.suptitle("\n".join(lines), x=0.01, ha="left", color=GREY)


def lay_out(sheet: Sheet) -> None:
    """Lay a sheet out and leave it so: what is written to any file is what was measured."""
    sheet.draw_without_rendering()
    sheet.set_layout_engine("none")


def width(text: str) -> float:
    """Of one line of text, in points."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), False)[0])


def wrapped(text: str, limit: float) -> list[str]:
    """Lines of at most `limit` points, broken at spaces; a word that is longer has a line for itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def brief(text: str, longest: int = LONGEST) -> str:
    """Text whose parts between commas have at most so many characters, an ellipsis for their middle."""
    return ", ".join(
        part if len(part) <= longest else f"{part[: longest // 2]}…{part[longest // 2 + 1 - longest :]}"
        for part in printable(text).split(", ")
    )


def listed(items: Sequence[str], limit: int = 6) -> str:
    """`a; b; and 3 more`."""
    rest = len(items) - limit
    return "; ".join([*items[:limit], *([f"and {rest} more"] if rest > 0 else [])])


def slug(text: str) -> str:
    """Text as part of a file name: lower-case letters and digits with hyphens between."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
