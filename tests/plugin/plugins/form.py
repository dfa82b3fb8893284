"""A report of one line."""

from pathlib import Path

from petl_bench.report import FORMATS, Report


@FORMATS.register("brief")
def brief(report: Report, folder: Path) -> str:
    """Return the number of runs."""
    return f"runs: {len(report.results)}\n"
