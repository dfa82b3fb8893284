"""Reports as one HTML page that needs no network, no server and no other file."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from petl_bench.errors import counted
from petl_bench.report.grid import Grid
from petl_bench.report.labels import PEEK
from petl_bench.report.page_rows import SHOWN, WORDS, embedded, provenance
from petl_bench.report.sections import Section
from petl_bench.report.tables import BLANK
from petl_bench.types import ResultRow

HEADLINE = "mean of groups"
"""Name of the column that is emphasized."""
PROTOCOLS = {
    "sealed": "The scale, and the learning rate where several are tried, are chosen on validation images. "
    "The test images are first read when the finished file is evaluated, once, after the last epoch.",
    "fixed": "Scale and learning rate are fixed in advance, and the finished file is evaluated on the test "
    "images once, after the last epoch. For VTAB-1K the scales are those of the released checkpoints, whose "
    "authors selected them on test images.",
    "peek": "The test images are evaluated every ten epochs, and tables show the best result (marked "
    f"{PEEK}), as the released code does. Such accuracies are too high and are comparable only with others "
    "obtained in the same way.",
}
"""Explanations of the protocols for the page."""
_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?($|[\s/%†-])", re.IGNORECASE)
"""Text that is sorted as a number, as in page.js."""


class Figure(Protocol):
    """A figure with an alternative text for readers who do not see it."""

    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    def svg(self) -> str: ...


@dataclass(frozen=True)
class PageContent:
    """The content of a page. Any text in it may be hostile; it is shown literally.

    Attributes:
        title: title of the page.
        sections: grids, sentences and notes of each table.
        warnings: warnings about the report as a whole.
        results: the finished runs.
        links: function from a run_id to relative, quoted URLs of its spec and its adapter file; an empty URL
            where there is no such file.
        figures: figures of the tables.
        published: grids of published results.
        footnotes: footnotes of the published grids.
        curves: command that shows the training curves.
        variants: number of variants of each run's cell.
        store: folder of the store, quoted for a shell.
    """

    title: str
    sections: Sequence[Section]
    warnings: Sequence[str]
    results: Sequence[ResultRow]
    links: Callable[[str], tuple[str, str]]
    figures: Sequence[Figure] = ()
    published: Sequence[Grid] = ()
    footnotes: Sequence[str] = ()
    curves: str = ""
    variants: Mapping[str, int] = field(default_factory=dict)
    store: str = ""


@dataclass(frozen=True)
class Drawn:
    """A grid as the template draws it.

    Attributes:
        grid: the grid.
        about: settings of its rows, for readers who hear the caption alone.
    """

    grid: Grid
    about: str

    @cached_property
    def styles(self) -> list[str]:
        """CSS class of each column: `t` for words, `k` for the headline, empty for other numbers."""
        words = [
            any(cell.text != BLANK and not _NUMBER.match(cell.text) for cell in column.cells)
            for column in self.grid.columns
        ]
        names = [column.name for column in self.grid.columns]
        return [
            "t" if word else "k" if name == HEADLINE else "" for word, name in zip(words, names, strict=True)
        ]


def page(content: PageContent) -> str:
    """Return the page as text, to be written in UTF-8.

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
        # Only the script and the style with these hashes can run, whatever a name contains.
        policy=f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        sections=[_section(section) for section in content.sections],
        published=[Drawn(grid, "published") for grid in content.published],
        figures=[(figure, b64encode(figure.svg().encode()).decode()) for figure in content.figures],
        days=sorted({row.finished_at[:10] for row in content.results}),
        protocols={
            name: text
            for name, text in PROTOCOLS.items()
            if name in {row.protocol for row in content.results}
        },
        provenance=provenance(content.results),
        shown={name: "t" if name in WORDS else "" for name in SHOWN},
        runs=Markup(embedded(content.results, content.links, content.store, content.variants)),  # noqa: S704
    )


def _section(section: Section) -> dict[str, Any]:
    whole = section.averages.beside(section.accuracies)
    grids = [replace(whole, title=section.accuracies.title), section.costs]
    return {
        "title": section.title,
        "headline": section.headline,
        "notes": section.notes,
        "grids": [Drawn(grid, section.title) for grid in grids],
        "sentences": section.sentences,
        "comparisons": [Drawn(grid, section.title) for grid in section.comparisons],
        "numbers": Drawn(section.numbers, section.title) if section.numbers else None,
    }


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
