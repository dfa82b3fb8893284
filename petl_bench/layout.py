"""Tables and lines for a terminal: within its width where there is one, else as wide as they are."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.box import Box

GAP = 2
"""Spaces between the columns of a table that fits a width."""
READABLE = 24
"""Width below which no text that is aligned to the left is wrapped."""
UNLIMITED = 1_000_000
"""Width for which nothing is cut or folded."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: heading of the column.
        cells: texts of its rows.
        over: heading over neighbouring columns.
        left: whether the column is aligned to the left.
    """

    name: str
    cells: Sequence[str]
    over: str = ""
    left: bool = False


def terminal_width() -> int | None:
    """Return the number of characters in a line of the terminal that stdout is, or of COLUMNS, if it is set.

    None: stdout is no terminal, and what is written need not fit a width.
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def wrapped(line: str, width: int | None, indent: str = "  ") -> list[str]:
    """Return a line as lines of at most a width; only a single word is wider.

    Args:
        line: the line.
        width: number of characters; None: the line stays as it is.
        indent: beginning of all lines but the first.
    """
    if width is None or _size(line) <= width:
        return [line]
    return _filled(re.findall(" *[^ ]+ *", line), width, indent)


def table_lines(
    columns: Sequence[Column], labels: int = 1, width: int | None = None, style: Box | None = None
) -> list[str]:
    """Return a table as lines.

    Within a width, headings are wrapped, then texts at spaces; what is still too wide becomes several tables
    below each other, if possible between groups of columns, each with the columns that say what a row is.

    Args:
        columns: the columns from left to right.
        labels: number of leading columns that say what a row is.
        width: number of characters; None: as wide as the table is.
        style: borders of a table without a width; None: those of rich.
    """
    from rich.box import HEAVY_HEAD

    if width is None:
        return _drawn(columns, None, style or HEAVY_HEAD)
    drawn = [_drawn(part, widths, None) for part, widths in _parts(columns, labels, width)]
    return [line for part in drawn for line in ["", *part]] + [""]


def _drawn(columns: Sequence[Column], widths: Sequence[int] | None, style: Box | None) -> list[str]:
    """Return a table as lines, each column as wide as stated or, without widths, as its texts."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=style or SIMPLE_HEAD)
    if widths is not None:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, GAP - 1))
    headings = _headings(columns, widths)
    for number, (column, heading) in enumerate(zip(columns, headings, strict=True)):
        table.add_column(
            Text(heading),
            justify="left" if column.left else "right",
            no_wrap=widths is None,
            width=None if widths is None else widths[number],
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    buffer = io.StringIO()
    Console(file=buffer, width=UNLIMITED, highlight=False, markup=False, emoji=False).print(table)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


def _headings(columns: Sequence[Column], widths: Sequence[int] | None) -> list[str]:
    """Return the headings, with those over neighbouring columns on the first line where there are any."""
    names = [
        [column.name] if widths is None else _filled(_pieces(column.name), widths[number])
        for number, column in enumerate(columns)
    ]
    height = max(map(len, names))
    texts = ["\n".join([*[""] * (height - len(lines)), *lines]) for lines in names]
    if not any(column.over for column in columns):
        return texts
    befores = ["", *(column.over for column in columns)]
    return [
        f"{column.over if column.over != before else ''}\n{text}"
        for column, before, text in zip(columns, befores, texts, strict=False)
    ]


def _filled(pieces: Sequence[str], width: int, indent: str = "") -> list[str]:
    """Return pieces of a text on lines of at most a width; only a single piece is wider."""
    lines = [""]
    for piece in pieces:
        if lines[-1].strip() and _size(f"{lines[-1]}{piece}".rstrip()) > width:
            lines.append(indent)
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(name: str) -> list[str]:
    """Return the parts of a heading between which a line may end; together they are the heading."""
    return re.findall(r"[^ _]*[ _]+|[^ _]+", name) or [""]


def _size(text: str) -> int:
    """Return the number of places of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _widths(column: Column) -> tuple[int, int]:
    """Return the least width of a column, and the one at which neither its heading nor a cell is wrapped."""
    heading = max(map(_size, [column.over, *(piece.rstrip() for piece in _pieces(column.name))]))
    word = max((_size(word) for cell in column.cells for word in cell.split()), default=0)
    text = max(map(_size, column.cells), default=0)
    least = max(heading, word, min(text, READABLE if column.left else 0))
    return least, max(least, text, _size(column.name))


def _parts(
    columns: Sequence[Column], labels: int, width: int
) -> Iterator[tuple[Sequence[Column], Sequence[int]]]:
    """Yield the tables into which a table is cut, with the widths of their columns."""
    if widths := _shrunk(columns, width):
        yield columns, widths
        return
    lead, rest = list(columns[:labels]), columns[labels:]
    most = min(width // 2, width - GAP - max(_widths(column)[0] for column in rest)) if rest else width
    own = _shrunk(lead, most)
    if own is None:
        lead = [_joined(lead)]
        least, natural = _widths(lead[0])
        own = [max(least, min(natural, most))]
    room = width - sum(own) - GAP * (len(own) - 1)
    for part in list(_packed(rest, room)) or [[]]:
        yield [*lead, *part], [*own, *(_shrunk(part, room - GAP) or [_widths(column)[0] for column in part])]


def _shrunk(columns: Sequence[Column], width: int) -> list[int] | None:
    """Return widths at which columns fit a width, as near to their own as possible; None: there are none."""
    pairs = [_widths(column) for column in columns]
    widths = [natural for _, natural in pairs]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    if excess > sum(natural - least for least, natural in pairs):
        return None
    for _ in range(excess):
        numbers = [number for number, (least, _) in enumerate(pairs) if widths[number] > least]
        widths[max(numbers, key=lambda number: widths[number])] -= 1
    return widths


def _packed(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """Yield columns in sets that fit a room with the gap before each; a group is cut only if it must be."""
    held: list[Column] = []
    left = room
    for _, members in groupby(columns, key=lambda column: column.over):
        group = list(members)
        needed = sum(_widths(column)[0] + GAP for column in group)
        for piece in [group] if needed <= room else [[column] for column in group]:
            needed = sum(_widths(column)[0] + GAP for column in piece)
            if held and needed > left:
                yield held
                held, left = [], room
            held, left = [*held, *piece], left - needed
    if held:
        yield held


def _joined(columns: Sequence[Column]) -> Column:
    """Return one column with the texts of several, the names of all but the first before them."""
    cells = [
        ", ".join(
            text if number == 0 else f"{columns[number].name} {text}"
            for number, text in enumerate(texts)
            if number == 0 or text not in ("", "-")
        )
        for texts in zip(*(column.cells for column in columns), strict=True)
    ]
    return Column(columns[0].name, cells, left=True)
