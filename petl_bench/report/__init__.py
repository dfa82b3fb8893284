"""Rows -> tables, statistics, figures and a page, published rows beside them. Reads the store; no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from petl_bench.report.content import Report, build
from petl_bench.report.latex import latex
from petl_bench.report.records import to_csv, to_json, to_parquet
from petl_bench.report.text import markdown, text

__all__ = ["FORMATS", "Report", "build"]

FORMATS: dict[str, Callable[[Report, Path], str | bytes]] = {
    "text": lambda report, _: text(report),
    "markdown": lambda report, _: markdown(report),
    "latex": lambda report, _: latex(report),
    "csv": lambda report, _: to_csv(report),
    "json": lambda report, _: to_json(report),
    "parquet": lambda report, _: to_parquet(report),
}
"""Name -> what it makes of a report that will stand in a folder (which links are relative to)."""
