"""Rows -> tables, statistics, figures and a page, published rows beside them. Reads the store; no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.content import Report, build
from petl_bench.report.latex import latex
from petl_bench.report.records import to_csv, to_json, to_parquet
from petl_bench.report.text import markdown, tensorboard, text

__all__ = ["FORMATS", "MARGIN", "Report", "build"]

MARGIN = 0.01
"""Accuracies closer than this count as equivalent unless the user says otherwise."""


def html(report: Report, base: Path) -> str:
    """The page, whose links to spec and adapter file of a run are relative to the folder `base`."""
    from petl_bench.report.page import PageContent, page
    from petl_bench.report.page_rows import links

    content = PageContent(
        title=f"petl-bench: {report.store.resolve().name}",
        tables=report.tables,
        warnings=report.warnings,
        rows=report.rows,
        links=links(report.store, base),
        figures=report.figures,
        comparisons=dict(enumerate(report.comparisons)),
        published=published_grids(report.tables, report.published),
        footnotes=footnotes(report.published),
        curves=tensorboard(report),
    )
    return page(content)


FORMATS: dict[str, Callable[[Report, Path], str | bytes]] = {
    "text": lambda report, _: text(report),
    "markdown": lambda report, _: markdown(report),
    "latex": lambda report, _: latex(report),
    "csv": lambda report, _: to_csv(report),
    "json": lambda report, _: to_json(report),
    "parquet": lambda report, _: to_parquet(report),
    "html": html,
}
"""Name -> what it makes of a report that will stand in a folder (which links are relative to)."""
