"""`petl-bench report`: tables, statistics and figures of finished runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import DEFAULT_STORE, note, say, usable_rows
from petl_bench.cli.filters import chosen, filtered, on_tasks
from petl_bench.cli.options import FilterOption, JsonOption, OutOption, StoreOption
from petl_bench.errors import UserError, did_you_mean
from petl_bench.layout import terminal_width
from petl_bench.store import Store
from petl_bench.types import ResultRow

if TYPE_CHECKING:
    from petl_bench.report import Question, Report

PUBLISHED = "published"
"""Value of `--against`."""


def report(
    store: StoreOption = DEFAULT_STORE,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="text (default), markdown, latex, csv, json, parquet, html, or a form of a plug-in; csv and "
            "parquet have one row per run, the others tables.",
        ),
    ] = None,
    out: OutOption = None,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", metavar="DIR", help="Also write figures to this folder, as SVG and PNG."),
    ] = None,
    filters: FilterOption = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="A,B",
            help="Use only these tasks, or groups of tasks; averages and tests are over them alone.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar=PUBLISHED,
            help="Add tables of published results, and the differences from them.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="K=V,...",
            help="Compare every other configuration with this one, e.g. adapter=lora,bits=32, and not "
            "bit-widths. Keys are those of --filter.",
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare", metavar="A B", help="Compare configuration A with B, each as in --baseline."
        ),
    ] = None,
    power: Annotated[
        bool,
        typer.Option(
            "--power",
            help="Add the smallest differences and margins that the tests could have shown, and that other "
            "numbers of tasks and seeds could.",
        ),
    ] = False,
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            help="Accuracy difference, in points, within which configurations count as equivalent.",
        ),
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Report the finished runs of a store.

    Tables show the accuracy by task, the means of groups of tasks and the mean of these, bytes by part, and
    tests of whether fewer bits reduce the accuracy, or of other differences that are asked for. The report
    goes to stdout, or with --out to a file; --json stands for --format json.
    """
    from petl_bench.report import FORMATS, for_terminal

    if json and format not in (None, "json"):
        raise UserError(f"--json and --format {format}: give one of them")
    format = "json" if json else format or "text"
    made = FORMATS.get(format)
    if format == "parquet" and out is None:
        raise UserError("--format parquet is binary: name a file with --out")
    base = out.parent if out else Path()
    content = content_of(store, filters or [], tasks, against, baseline, compare, power, margin)
    if format == "text" and out is None:
        form: str | bytes = for_terminal(content, terminal_width())
    else:
        form = made(content, base)
    if isinstance(form, bytes) and out is None:
        raise UserError(f"--format {format} is binary: name a file with --out")
    for warning in content.all_warnings:
        note(f"warning: {warning}")
    for what in _unused(content) if format in ("csv", "parquet") else []:
        note(f"warning: {format} holds only rows of the store; the other formats have {what}")
    if plots:
        _draw(content, plots)
    if out is None:
        _print(str(form))
    else:
        _write(out, form if isinstance(form, bytes) else form.encode(errors="backslashreplace"))
        note(f"wrote {out}")


def content_of(
    store: Path,
    filters: Sequence[str] = (),
    tasks: str | None = None,
    against: str | None = None,
    baseline: str | None = None,
    compare: tuple[str, str] | None = None,
    power: bool = False,
    margin: float = 1,
) -> Report:
    """Return the report of a store; the arguments are the options of `petl-bench report`.

    Raises:
        UserError: there is no finished run, or an option has a wrong value.
    """
    from petl_bench.data import manifests
    from petl_bench.report import build

    if against not in (None, PUBLISHED):
        raise UserError(f"--against {against}: {did_you_mean(str(against), [PUBLISHED])}")
    if not 0 < margin <= 100:
        raise UserError(f"--margin {margin:g}: it must be above 0 and at most 100 points of accuracy")
    shelf = Store(store)
    whole = rows = _rows(shelf)
    for text in filters:
        rows = filtered(rows, text, shelf)
    if tasks is not None:
        rows = on_tasks(rows, tasks)
    said = [*filters, *([f"tasks={tasks}"] if tasks is not None else [])]
    question = _question(rows, shelf, baseline, compare)
    return build(rows, manifests(), margin / 100, store, against is not None, whole, said, question, power)


def _question(
    rows: Sequence[ResultRow], store: Store, baseline: str | None, compare: tuple[str, str] | None
) -> Question | None:
    """Return what is to be compared; None: bit-widths.

    Raises:
        UserError: two things are asked, or no run has the settings of a configuration.
    """
    from petl_bench.report import Choice, Question

    if baseline is not None and compare is not None:
        raise UserError("--baseline and --compare ask different questions: give one of them")
    if baseline is not None:
        asked = Choice(baseline, chosen(rows, baseline, store, "--baseline"))
        return Question(f"--baseline {baseline}", None, asked)
    if compare is not None:
        one, two = (Choice(text, chosen(rows, text, store, "--compare")) for text in compare)
        return Question(f"--compare {one.text} {two.text}", one, two)
    return None


def _unused(content: Report) -> list[str]:
    """Return the parts of a report that were asked for and that formats of single runs do not have."""
    parts = {
        "published results": content.published,
        "comparisons": content.question,
        "power": content.with_power,
    }
    return [what for what, asked in parts.items() if asked]


def _rows(store: Store) -> list[ResultRow]:
    """Return the usable rows of a store.

    Raises:
        UserError: there are none.
    """
    rows = usable_rows(store, needed=True)
    if rows:
        return rows
    if failed := store.failures():
        raise UserError(
            f"store {store.root}: holds no finished run; {len(failed)} failed, the first one: "
            f"{' '.join(store.failure(failed[0])['message'].split())} (see error.json in their directories; "
            "`petl-bench sweep --existing retry-failed` repeats them)"
        )
    raise UserError(f"store {store.root}: holds no finished run; run `petl-bench sweep` first")


def _print(text: str) -> None:
    """Print a text; characters that the encoding of stdout lacks are escaped, with a warning."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError as error:
        lacking = error.object[error.start]
        note(
            f"warning: stdout has the encoding {error.encoding}, which lacks {lacking!r}: set "
            "PYTHONIOENCODING=utf-8, or name a file with --out"
        )
    say(*text.removesuffix("\n").split("\n"))


def _draw(content: Report, folder: Path) -> None:
    """Write all figures of a report as SVG and PNG.

    Raises:
        UserError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--plots {folder}: cannot be created: {error.strerror}") from error
    for figure in content.figures:
        _write(folder / f"{figure.name}.svg", figure.svg().encode())
        _write(folder / f"{figure.name}.png", figure.png())
        note(f"drew {folder / figure.name}.svg and .png")
    if not content.figures:
        note(f"warning: no figure for {folder}: fewer than two configurations have results for all tasks")


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically; links are followed, and devices and pipes are written to directly.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        target = path.resolve()
        device = path.absolute().parts[1] in ("dev", "proc")
        if path.exists() and (device or not target.is_file()):
            with path.open("ab") as stream:
                stream.write(data)
        else:
            write_atomic(target, data, target.stat().st_mode & 0o777 if target.exists() else None)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
