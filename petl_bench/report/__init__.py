"""Rows -> tables, and published rows beside them. Reads the store; no torch."""

from petl_bench.report.published import cautions, published
from petl_bench.report.render import FORMATS
from petl_bench.report.tables import tabulate

__all__ = ["FORMATS", "cautions", "published", "tabulate"]
