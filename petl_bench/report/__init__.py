"""Rows -> tables. Reads the store; no torch."""

from petl_bench.report.render import FORMATS
from petl_bench.report.tables import tabulate

__all__ = ["FORMATS", "tabulate"]
