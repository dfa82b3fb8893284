"""`petl-bench data`: verification, preparation and description of data sets."""

from __future__ import annotations

import fnmatch
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petl_bench.cli.common import (
    Counter,
    JsonOption,
    OverrideOption,
    data_settings,
    note,
    print_json,
)
from petl_bench.errors import UserError, counted, did_you_mean

if TYPE_CHECKING:
    from petl_bench.data.checks import Problem
    from petl_bench.data.verify import TaskReport
    from petl_bench.types import Manifest

app = typer.Typer(no_args_is_help=True, help="Verify, prepare and describe data sets.")

SuiteArgument = Annotated[
    str,
    typer.Argument(metavar="SUITE", help="vtab, fgvc, or a task or pattern, e.g. vtab_cifar or 'vtab_d*'."),
]
RootArgument = Annotated[Path, typer.Option("--root", help="Folder of the data sets.")]
SHOWN = 5
"""Problems of one kind, task and split that are printed below the table; --json prints all."""


@app.command("verify")
def verify(
    suite: SuiteArgument,
    root: RootArgument,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Check the files of data sets and print all problems.

    Checked are lists, numbers of images, labels, every image, and whether training and test share images. The
    exit code is 1 if there is any problem.
    """
    from petl_bench.config import overridden, plan_task
    from petl_bench.data import expected_files
    from petl_bench.data.verify import verify as verify_task

    manifests = _manifests(suite)
    if not root.is_dir():
        raise UserError(f"--root {root}: no such folder")
    settings = data_settings(root, override)
    reports = _whole_root(suite, root, manifests)
    if not reports:
        facts = [overridden(manifest, str(override or ""))[0] for manifest in manifests]
        specs = [plan_task(m.name, settings, *(m.shots[:1] or [1])) for m in manifests]
        listed = [sum(known.lines for known in m.lists.values()) for m in manifests]
        total = sum(lines or expected_files(spec) for lines, spec in zip(listed, specs, strict=True))
        with Counter("files", total) as counter:
            for spec, manifest in zip(specs, facts, strict=True):
                reports.append(verify_task(spec, manifest, settings.decoded, counter))
    wrong = sum(len(report.problems) for report in reports)
    if json:
        for problem in (problem for report in reports for problem in report.problems):
            print_json(asdict(problem))
        print_json(_summary(suite, root, reports))
    else:
        _print(reports)
    if wrong:
        note(f"{counted(wrong, 'problem')} in {root}")
        raise typer.Exit(1)


@app.command("prepare")
def prepare(
    suite: SuiteArgument,
    root: RootArgument,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", help="A .zip or .tar file, or a folder of such files or of unpacked files."
        ),
    ] = None,
    from_hub: Annotated[
        str | None,
        typer.Option("--from-hub", metavar="OWNER/NAME", help="Data set repository of the Hugging Face hub."),
    ] = None,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Unpack a data set into a folder, then verify it.

    The source is either an archive that circulates (--archive) or a repository of the Hugging Face hub
    (--from-hub). Folders that are already in place are left unchanged.
    """
    from petl_bench.data.hub import prepare_from_hub
    from petl_bench.data.prepare import prepare as prepare_root

    manifests = _manifests(suite)
    if any(manifest.suite == "own" for manifest in manifests):
        raise UserError(f"{suite}: your own data need no preparation; see `petl-bench data info {suite}`")
    folders = _known_folders(manifests)
    if archive is not None and from_hub is None:
        placed = prepare_root(archive, root, folders, note)
    elif from_hub is not None and archive is None:
        placed = prepare_from_hub(from_hub, root, folders, note)
    else:
        hubs = sorted({m.about["hub"] for m in manifests if "hub" in m.about})
        known = f"; {suite} is at {', '.join(hubs)}" if hubs else ""
        raise UserError(f"give either --archive PATH or --from-hub OWNER/NAME{known}")
    note(f"placed {', '.join(placed) or 'nothing new'}; now verifying")
    verify(suite, root, override, json)


def _known_folders(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return the folders of some tasks with the other names under which each circulates."""
    folders = {}
    for manifest in manifests:
        for names in (manifest.folders, manifest.images):
            if names:
                folders[names[0]] = names[1:]
    return folders


@app.command("info")
def info(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task.")], json: JsonOption = False
) -> None:
    """Print the manifest of a task.

    A manifest states the sizes, layout, preprocessing, license and origin of a data set.
    """
    from petl_bench.data import manifests

    if task not in manifests():
        raise UserError(f"unknown task {task!r}: {did_you_mean(task, manifests())}")
    facts = asdict(manifests()[task])
    if json:
        print_json(facts)
        return
    about, lists = facts.pop("about"), facts.pop("lists")
    for key, value in {**facts, **about}.items():
        if value not in ("", [], {}, 0):
            print(f"{key:<14} {value}")
    for name, held in lists.items():
        print(f"{name:<40} {held['lines']} lines, SHA-256 {held['sha256']}")


def _manifests(suite: str) -> list[Manifest]:
    """Return the tasks with files of a suite, or those whose names match."""
    from petl_bench.data import manifests

    files = [manifest for manifest in manifests().values() if not manifest.fingerprint]
    found = [m for m in files if suite == m.suite or fnmatch.fnmatch(m.name, suite)]
    if not found:
        known = {m.suite for m in files} | {m.name for m in files}
        bundled = any(suite in (m.suite, m.name) for m in manifests().values())
        why = "is bundled and has no files" if bundled else "is neither a suite nor a task with files"
        raise UserError(f"{suite!r} {why}: {did_you_mean(suite, known)}")
    return found


def _whole_root(suite: str, root: Path, manifests: Sequence[Manifest]) -> list[TaskReport]:
    """Return the problem of an empty root, or of one with another suite; empty if it has neither."""
    from petl_bench.data import manifests as all_manifests
    from petl_bench.data.checks import Problem
    from petl_bench.data.verify import TaskReport

    if any(manifest.suite == "own" for manifest in manifests):
        return []
    if not any(not path.name.startswith(".") for path in root.iterdir()):
        message = (
            f"the folder is empty; `petl-bench data prepare {suite} --archive FILE --root {root}` fills it"
        )
        return [TaskReport("", [Problem("", "", "empty_folder", str(root), message)])]

    def there(found: Sequence[Manifest]) -> int:
        return sum(any((root / folder).is_dir() for folder in m.folders) for m in found)

    suites = {m.suite for m in manifests}
    others = [m for m in all_manifests().values() if m.suite not in suites]
    if there(manifests) == 0 and there(others):
        other = next(m.suite for m in others if there([m]))
        message = f"holds no folder of {suite} but those of {other}: wrong suite? `data verify {other}`"
        return [TaskReport("", [Problem("", "", "wrong_suite", str(root), message)])]
    return []


def _summary(suite: str, root: Path, reports: Sequence[TaskReport]) -> dict[str, Any]:
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


def _print(reports: Sequence[TaskReport]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130, highlight=False)
    table = Table("task", "images", "formats", "JPEG quality", "fingerprint", "problems")
    for report in reports:
        total = max(sum(report.formats.values()), 1)
        formats = ", ".join(f"{name} {100 * n / total:.0f}%" for name, n in report.formats.items())
        quality = "{}..{}..{}".format(*report.jpeg_quality) if report.jpeg_quality else "-"
        cells = (
            report.task or "-",
            f"{report.images:,}",
            formats or "-",
            quality,
            report.fingerprint[:16] or "-",
        )
        table.add_row(*cells, str(len(report.problems)))
    console.print(table)
    for report in reports:
        for line in (*_lines(report.problems), *(f"{report.task}: note: {text}" for text in report.notes)):
            console.print(line, markup=False, soft_wrap=True)


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
