"""Rows -> tables, statistics, figures and a page, published rows beside them. Reads the store; no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from petl_bench.report.content import Report, build
from petl_bench.report.latex import latex
from petl_bench.report.records import to_csv, to_json, to_parquet
from petl_bench.report.text import markdown, tensorboard, text

if TYPE_CHECKING:
    from petl_bench.report.figures import Figure

__all__ = ["FORMATS", "MARGIN", "Report", "build", "figures_of"]

MARGIN = 0.01
"""Accuracies closer than this count as equivalent unless the user says otherwise."""


def figures_of(report: Report) -> list[Figure]:
    """Every figure that the rows allow. Loads matplotlib."""
    from petl_bench.report.figures import figures
    from petl_bench.report.statistics import ranking

    ranked = {number: ranking(table) for number, table in enumerate(report.tables)}
    held = {number: found for number, found in ranked.items() if found}
    return figures(report.tables, report.margin, held, report.comparisons)


def html(report: Report, base: Path) -> str:
    """The page, whose links to spec and adapter file of a run are relative to the folder `base`."""
    from petl_bench.report.cited import cited_grids, difference_grids, footnotes
    from petl_bench.report.page import PageContent, page
    from petl_bench.report.page_rows import links

    cited = [*cited_grids(report.published), *difference_grids(report.tables, report.published)]
    content = PageContent(
        title=f"petl-bench: {report.store.resolve().name}",
        tables=report.tables,
        warnings=report.warnings,
        rows=report.rows,
        links=links(report.store, base),
        figures=figures_of(report),
        comparisons=dict(enumerate(report.comparisons)),
        published=cited,
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
