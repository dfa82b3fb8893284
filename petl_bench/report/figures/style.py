"""Common parts of all figures: size, text, colours, markers, legends and files."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Sheet
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from petl_bench.report.labels import printable

T = TypeVar("T")
WIDTH = 6.4
"""Width in inches: both columns of a paper, or the column of a wide page."""
DPI = 200
TEXT = 8.0
"""Font size in points."""
LONGEST = 30
"""Largest number of characters of a name in a figure."""
GREY = "#595959"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""The palette of Okabe and Ito without yellow, which is hard to see on white."""
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
    """One figure, drawn anew on each call so that it does not stay in memory.

    Attributes:
        name: file name without extension: lower-case letters, digits and hyphens; unique in a report.
        title: title with the settings that all rows have in common.
        description: alternative text: the axes, and the main result in numbers.
        paint: function that draws the figure on an empty sheet.
    """

    name: str
    title: str
    description: str
    paint: Callable[[Sheet], None] = field(repr=False, compare=False)

    def draw(self) -> Sheet:
        """Return the figure as a matplotlib object with its final layout."""
        with _house_style():
            sheet = Sheet(figsize=(WIDTH, 4.0), layout="constrained")
            FigureCanvasAgg(sheet)
            self.paint(sheet)
            lay_out(sheet)
            return sheet

    def svg(self) -> str:
        """Return the figure as SVG text, which is the same each time; letters are paths."""
        metadata = {"Title": printable(self.title), "Description": printable(self.description), "Date": None}
        return self._file(
            lambda sheet, file: FigureCanvasSVG(sheet).print_svg(file, metadata=metadata)
        ).decode()

    def png(self) -> bytes:
        """Return the figure as PNG with 200 dots per inch on white."""
        return self._file(lambda sheet, file: FigureCanvasAgg(sheet).print_png(file))

    def _file(self, write: Callable[[Sheet, io.BytesIO], None]) -> bytes:
        """Return what a canvas writes; `savefig` would draw the sheet once more to compute a layout."""
        buffer = io.BytesIO()
        with _house_style():
            sheet = self.draw()
            write(sheet, buffer)
            sheet.clear()
        return buffer.getvalue()


@contextmanager
def _house_style() -> Iterator[None]:
    """Use the defaults of matplotlib with our settings, independent of the user's matplotlibrc."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def parts(items: Sequence[T], most: int, name: str, context: str) -> list[tuple[Sequence[T], str, str]]:
    """Split items into figures of at most `most` items each.

    Returns:
        Items, name and context of each figure; names and contexts are numbered where there are several
        figures.
    """
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
    """Look of a series: colour and marker show its family, fill and dashes its variant.

    Attributes:
        colour: colour of lines and edges.
        marker: shape of the marker.
        lightness: lightness of the marker's fill, from 0 (the colour) to 1 (white).
        dashes: style of the line.
    """

    colour: str
    marker: str
    lightness: float
    dashes: Dashes

    def mark(self) -> dict[str, Any]:
        """Return matplotlib's arguments for the marker."""
        return {
            "marker": self.marker,
            "markersize": 5.5,
            "markerfacecolor": lightened(self.colour, self.lightness),
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.0,
        }

    def sign(self, line: bool) -> Line2D:
        """Return the sign of the series in a legend, with or without its line."""
        dashes: Dashes = self.dashes if line else "none"
        return Line2D([], [], color=self.colour, linestyle=dashes, linewidth=1.3, **self.mark())


def looks(families: Sequence[str], variants: Sequence[str]) -> dict[tuple[str, str], Look]:
    """Return a look for each family and variant; fills get lighter from variant to variant, up to white."""
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
    """Return a colour mixed with a share of white, from 0 (the colour) to 1 (white)."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def sheet_axes(sheet: Sheet, context: str, height: float) -> Axes:
    """Create axes below a heading.

    Args:
        sheet: the figure.
        context: the heading: settings that all rows have in common.
        height: height of the axes with their labels in inches; heading and legends are added to it.
    """
    sheet.set_size_inches(WIDTH, height)
    _head(sheet, context, 72 * (WIDTH - 0.2))
    axes: Axes = sheet.subplots()
    axes.grid(True)
    return axes


def zoomed_axes(sheet: Sheet, height: float) -> Axes:
    """Replace the axes of a sheet by two below each other, and return the lower one.

    Args:
        sheet: a sheet with one axes, which become the upper ones.
        height: height of the lower axes with their labels in inches, which is added to the sheet's.
    """
    (upper,) = sheet.axes
    above = sheet.get_figheight()
    sheet.set_figheight(above + height)
    places = sheet.add_gridspec(2, 1, height_ratios=[above, height])
    upper.set_subplotspec(places[0])
    lower = sheet.add_subplot(places[1])
    lower.grid(True)
    return lower


def key_below(sheet: Sheet, signs: Sequence[Artist], names: Sequence[str]) -> None:
    """Draw a legend below the axes in as many columns as fit; the sheet grows by its height."""
    texts = [wrapped(name, 72 * (WIDTH - 1)) for name in names]
    widest = max(width(line) for text in texts for line in text)
    columns = min(len(texts), max(1, int(72 * (WIDTH - 0.2) // (widest + 38))))
    rows = math.ceil(len(texts) / columns)
    sheet.set_figheight(sheet.get_figheight() + 0.17 * rows * max(map(len, texts)))
    sheet.legend(signs, ["\n".join(text) for text in texts], loc="outside lower center", ncols=columns)


def key_right(sheet: Sheet, heading: str, signs: Sequence[Artist], names: Sequence[str]) -> None:
    """Draw a legend on the right of the axes; the sheet grows if the legend is higher."""
    texts = [wrapped(name, 90) for name in names]
    widest = max(width(line) for text in texts for line in text)
    _head(sheet, sheet.get_suptitle(), 72 * (WIDTH - 0.2) - widest - 38)
    sheet.set_figheight(max(sheet.get_figheight(), 0.17 * (sum(map(len, texts)) + 5)))
    sheet.legend(signs, ["\n".join(text) for text in texts], loc="outside right upper", title=heading)


def _head(sheet: Sheet, text: str, room: float) -> None:
    """Set a heading that is at most `room` points wide; the height of the sheet follows its lines."""
    lines = wrapped(text, room)
    before = sheet.get_suptitle().count("\n") + 1 if sheet.get_suptitle() else 0
    sheet.set_figheight(sheet.get_figheight() + 0.15 * (len(lines) - before))
    sheet.suptitle("\n".join(lines), x=0.01, ha="left", color=GREY)


def lay_out(sheet: Sheet) -> None:
    """Compute the layout of a sheet and freeze it, so that files show what was measured."""
    sheet.draw_without_rendering()
    sheet.set_layout_engine("none")


def width(text: str) -> float:
    """Return the width of one line of text in points."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), False)[0])


def wrapped(text: str, limit: float) -> list[str]:
    """Break text at spaces into lines of at most `limit` points; a longer word gets a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def brief(text: str, longest: int = LONGEST) -> str:
    """Shorten each part of a text between commas to `longest` characters, with an ellipsis in its middle."""
    return ", ".join(
        part if len(part) <= longest else f"{part[: longest // 2]}…{part[longest // 2 + 1 - longest :]}"
        for part in printable(text).split(", ")
    )


def listed(items: Sequence[str], limit: int = 6) -> str:
    """Join items as `a; b; and 3 more`."""
    rest = len(items) - limit
    return "; ".join([*items[:limit], *([f"and {rest} more"] if rest > 0 else [])])


def slug(text: str) -> str:
    """Return text as part of a file name: lower-case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
