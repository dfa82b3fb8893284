"""Output of `petl-bench data`: the table of tasks, the classes of own data, and problems."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl_bench.cli.common import cells, say
from petl_bench.errors import counted

if TYPE_CHECKING:
    from petl_bench.data.checks import Problem
    from petl_bench.data.verify import TaskReport

SHOWN = 5
"""Problems of one kind, task and split that are printed below the table; --json prints all."""
USUAL = frozenset({"RGB", "L"})
"""Modes of pixels that are no news in a benchmark."""
CLASSES = 40
"""Classes of own data that are printed; --json prints all."""


def summary(suite: str, root: Path, reports: Sequence[TaskReport]) -> dict[str, Any]:
    """Return the last object of --json."""
    tasks = [
        {key: value for key, value in asdict(report).items() if key != "problems"}
        | {"problems": len(report.problems)}
        for report in reports
        if report.task
    ]
    wrong = sum(len(report.problems) for report in reports)
    return {
        "summary": True,
        "suite": suite,
        "root": str(root),
        "ok": not wrong,
        "problems": wrong,
        "tasks": tasks,
    }


def print_reports(reports: Sequence[TaskReport]) -> None:
    """Print a table of tasks, and below it problems, notes, and a description of own data."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130, highlight=False)
    table = Table("task", "images", "formats", "JPEG quality", "fingerprint", "problems")
    for report in reports:
        total = max(sum(report.formats.values()), 1)
        formats = ", ".join(f"{name} {100 * n / total:.0f}%" for name, n in report.formats.items())
        quality = "{}..{}..{}".format(*report.jpeg_quality) if report.jpeg_quality else "-"
        facts = (
            report.task or "-",
            f"{report.images:,}",
            formats or "-",
            quality,
            report.fingerprint[:16] or "-",
        )
        table.add_row(*cells(*facts, len(report.problems)))
    console.print(table)
    for report in reports:
        for line in _description(report):
            say(line)
        for line in (*_lines(report.problems), *(f"{report.task}: note: {text}" for text in report.notes)):
            say(line)


def _lines(problems: Sequence[Problem]) -> list[str]:
    """Return the first few problems of each kind, and the numbers of further ones."""
    shown: Tally[tuple[str, str]] = Tally()
    lines = []
    for problem in problems:
        cell = (problem.split, problem.kind)
        shown[cell] += 1
        if shown[cell] <= SHOWN:
            where = " ".join(part for part in (problem.task, problem.split) if part)
            lines.append(f"{where}: {problem.kind}: {problem.path}: {problem.message}".removeprefix(": "))
    more = [
        f"... and {n - SHOWN} more {kind} {split}".rstrip() for (split, kind), n in shown.items() if n > SHOWN
    ]
    return lines + more


def _description(report: TaskReport) -> list[str]:
    """Return modes, sizes, classes and files left out of own data; of others, modes that are unusual."""
    from petl_bench.data.describe import modes_and_sizes

    told = report.classes or report.left_out or report.modes.keys() - USUAL
    lines = [f"{report.task}: {modes_and_sizes(report.modes, report.sizes)}"] if told else []
    if report.classes:
        width = max(len(str(held["class"])) for held in report.classes[:CLASSES]) + 2
        lines.append(f"{'class':<{width}}{'train':>8}{'val':>8}{'test':>8}")
        for held in report.classes[:CLASSES]:
            lines.append(
                f"{held['class']:<{width}}"
                + "".join(f"{held[split]:>8,}" for split in ("train", "val", "test"))
            )
        if len(report.classes) > CLASSES:
            lines.append(f"... and {counted(len(report.classes) - CLASSES, 'more class')}")
    lines += [
        f"left out: {held['reason']}: {held['files']} (first: {held['first']})" for held in report.left_out
    ]
    return lines
