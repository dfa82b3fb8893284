"""A report as one HTML page that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from petl_bench.errors import counted
from petl_bench.report.columns import (
    HOLE,
    PEEK,
    Cell,
    Column,
    Grid,
    accuracies,
    averages,
    costs,
    counts,
    heading,
    label,
    labels,
    title,
)
from petl_bench.report.page_rows import SHOWN, WORDS, embedded, provenance
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import Table
from petl_bench.types import ResultRow

HEADLINE = "mean of groups"
PROTOCOLS = {
    "sealed": "The scale, and the learning rate where several are tried, are chosen on validation images; "
    "the test images are first read when the finished file is evaluated, once, after the last epoch.",
    "fixed": "Scale and learning rate are given beforehand, and the finished file is evaluated on the test "
    "images once, after the last epoch; for VTAB-1K the given scales are those of the released checkpoints, "
    "whose authors looked at test.",
    "peek": f"The test images are looked at every ten epochs, and tables show the best look (marked {PEEK}), "
    "as the released code does; such accuracies are too high and compare only with others obtained so.",
}
"""What a reader has to know of a protocol to trust its numbers."""
_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?($|[\s/%†-])", re.IGNORECASE)
"""As in page.js."""


class Figure(Protocol):
    """A drawing; the description is for readers who do not see it."""

    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    def svg(self) -> str: ...


@dataclass(frozen=True)
class PageContent:
    """What a page shows. Any text in it may be hostile: it is shown literally."""

    title: str
    tables: Sequence[Table]
    warnings: Sequence[str]
    """Of the report as a whole; a table's own are its notes."""
    rows: Sequence[ResultRow]
    links: Callable[[str], tuple[str, str]]
    """run_id -> relative, quoted URLs of its spec and its adapter file; empty where there is none."""
    figures: Sequence[Figure] = ()
    comparisons: Mapping[int, Sequence[Comparison]] = field(default_factory=dict)
    """By the number of the table in `tables`."""
    published: Sequence[Grid] = ()
    """Tables of what is cited."""
    footnotes: Sequence[str] = ()
    """Of the published tables."""
    curves: str = ""
    """The command that shows the training curves."""


@dataclass(frozen=True)
class Drawn:
    """A table as the template draws it."""

    caption: str
    about: str
    """What its numbers are of, for who hears the caption alone."""
    columns: list[Column]

    @property
    def lines(self) -> list[tuple[Cell, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def groups(self) -> list[tuple[str, list[int]]]:
        """Heading over neighbouring columns, and their numbers."""
        numbered = groupby(range(len(self.columns)), key=lambda number: self.columns[number].over)
        return [(over, list(numbers)) for over, numbers in numbered]

    @cached_property
    def styles(self) -> list[str]:
        """`t` for a column of words, `k` for the column to look at first."""
        words = [
            any(c.text != HOLE and not _NUMBER.match(c.text) for c in held.cells) for held in self.columns
        ]
        names = [held.name for held in self.columns]
        return [
            "t" if word else "k" if name == HEADLINE else "" for word, name in zip(words, names, strict=True)
        ]


def page(content: PageContent) -> str:
    """The page as text, to be written in UTF-8.

    Raises:
        ValueError: a link is not relative.
    """
    here = Path(__file__).parent
    css, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(
        "page.html"
    ).render(
        content=content,
        css=Markup(css),  # noqa: S704 - our own files; all else is escaped
        script=Markup(script),  # noqa: S704
        # Only what these hashes fit can run or style, whatever a name smuggles in.
        policy=f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        sections=[_section(number, content) for number in range(len(content.tables))],
        published=[Drawn(grid.title, "published", grid.columns) for grid in content.published],
        figures=[(figure, b64encode(figure.svg().encode()).decode()) for figure in content.figures],
        days=sorted({row.finished_at[:10] for row in content.rows}),
        protocols={
            name: text for name, text in PROTOCOLS.items() if name in {row.protocol for row in content.rows}
        },
        provenance=provenance(content.rows),
        shown={name: "t" if name in WORDS else "" for name in SHOWN},
        runs=Markup(embedded(content.rows, content.links)),  # noqa: S704
    )


def _section(number: int, content: PageContent) -> dict[str, Any]:
    table = content.tables[number]
    name = title(table, content.tables)
    means = [replace(column, over="averages") for column in averages(table)]
    comparisons = content.comparisons.get(number, ())
    return {
        "title": name,
        "notes": table.notes,
        "grids": [
            Drawn(heading(table), name, [*labels(table), *accuracies(table), *means, *counts(table)]),
            Drawn("Cost, mean over the tasks run", name, [*labels(table), *costs(table)]),
        ],
        "sentences": [comparison.sentence for comparison in comparisons],
        "compared": _compared(comparisons, table, name) if comparisons else None,
    }


def _compared(comparisons: Sequence[Comparison], table: Table, name: str) -> Drawn:
    texts: dict[str, Callable[[Comparison], str]] = {
        "line": lambda found: label(found.line, table),
        "against": lambda found: label(found.against, table),
        "difference": lambda found: _points(found.difference),
        "from": lambda found: _points(found.low),
        "to": lambda found: _points(found.high),
        "effect": lambda found: f"{found.effect:+.2f}",
        "tasks": lambda found: str(found.tasks),
        "wins": lambda found: str(found.wins),
        "ties": lambda found: str(found.ties),
        "losses": lambda found: str(found.losses),
        "p": lambda found: f"{found.p:.2g}",
        "p, Holm": lambda found: f"{found.p_holm:.2g}",
        "margin": lambda found: f"{100 * found.margin:g}",
        "p of equivalence": lambda found: f"{found.p_equivalence:.2g}",
        "p of equivalence, Holm": lambda found: f"{found.p_equivalence_holm:.2g}",
        "verdict": lambda found: found.verdict,
        "these tasks, from": lambda found: _points(found.repeated.low) if found.repeated else HOLE,
        "these tasks, to": lambda found: _points(found.repeated.high) if found.repeated else HOLE,
        "verdict of these tasks": lambda found: found.repeated.verdict if found.repeated else HOLE,
    }
    columns = [Column(head, [Cell(text(found)) for found in comparisons]) for head, text in texts.items()]
    return Drawn("Differences of accuracy in points, with 95 % intervals", name, columns)


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
