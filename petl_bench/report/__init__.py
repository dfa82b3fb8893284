"""Reports of a store: tables, statistics, figures and published results, in several formats. Needs no torch.

Modules import only from the modules before them: settings, sources, recipes, consistency, lines, variants,
suites, tables, labels, pareto, pairs, paired, t_tests, repeated, mixed, statistics, power, sentences, grid,
compared, sections, published, cited, content, then the formats: records, text, latex, page_rows and page.
`agreement` compares two runs. `figures/` draws tables and rankings and is imported only where figures are
asked for.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from petl_bench.registry import Registry
from petl_bench.report.cited import footnotes, published_grids
from petl_bench.report.content import Report, build
from petl_bench.report.latex import latex
from petl_bench.report.pairs import Choice, Question
from petl_bench.report.records import to_csv, to_json, to_parquet
from petl_bench.report.text import for_terminal, markdown, tensorboard

__all__ = ["FORMATS", "MARGIN", "Choice", "Question", "Report", "build", "for_terminal"]

MARGIN = 0.01
"""Default of the largest difference in accuracy that counts as equivalent."""


def html(report: Report, base: Path) -> str:
    """Return a report as a page.

    Args:
        report: the report.
        base: folder of the page; links to files of runs are relative to it.
    """
    from petl_bench.report.page import PageContent, page
    from petl_bench.report.page_rows import links

    content = PageContent(
        title=f"petl-bench: {report.store.resolve().name}",
        sections=report.sections,
        warnings=report.warnings,
        results=report.results,
        links=links(report.store, base),
        figures=report.figures,
        published=published_grids(report.tables, report.published),
        footnotes=footnotes(report.published),
        curves=tensorboard(report),
        variants=report.variants,
        store=shlex.quote(str(report.store)),
    )
    return page(content)


FORMATS: Registry[Callable[[Report, Path], str | bytes]] = Registry("format", "FORMATS")
"""Functions from a report, and the folder it will be written to, to the content of its file."""
FORMATS.register("text")(lambda report, _: for_terminal(report))
FORMATS.register("markdown")(lambda report, _: markdown(report))
FORMATS.register("latex")(lambda report, _: latex(report))
FORMATS.register("csv")(lambda report, _: to_csv(report))
FORMATS.register("json")(lambda report, _: to_json(report))
FORMATS.register("parquet")(lambda report, _: to_parquet(report))
FORMATS.register("html")(html)
