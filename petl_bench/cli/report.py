"""`petl-bench report`: tables of the finished runs."""

from __future__ import annotations

from dataclasses import asdict, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from petl_bench.cli.common import DEFAULT_STORE, StoreOption, note
from petl_bench.errors import UserError, did_you_mean
from petl_bench.store import Store
from petl_bench.types import ResultRow

PUBLISHED = "published"
"""What `--against` knows."""


class Format(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def report(
    store: StoreOption = DEFAULT_STORE,
    format: Annotated[Format, typer.Option("--format", help="Form of the tables.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file, not to stdout.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="K=V", help="Only rows with this value, e.g. bits=1. Repeatable."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar=PUBLISHED,
            help="Cited results of others, in tables of their own, after ours.",
        ),
    ] = None,
) -> None:
    """Accuracy by task, group means, mean of groups, and bytes by part."""
    from petl_bench.config import manifests
    from petl_bench.report import FORMATS, cautions, published, tabulate

    if against not in (None, PUBLISHED):
        raise UserError(f"--against {against}: {did_you_mean(str(against), [PUBLISHED])}")
    rows = list(Store(store).rows())
    if not rows:
        raise UserError(f"store {store}: holds no finished run; `petl-bench sweep` makes some")
    for text in filters or []:
        rows = _filtered(rows, text)
    tables, warnings = tabulate(rows, manifests())
    cited = published(manifests()) if against else []
    warnings += cautions(tables, cited) if cited else []
    if cited and format is Format.csv:
        warnings.append("csv holds rows of the store only; the other formats have the published ones")
    content = FORMATS[format.value](tables, warnings, cited)
    for warning in warnings:
        note(f"warning: {warning}")
    if out is None:
        print(content, end="")
    else:
        out.write_text(content, encoding="utf-8")
        note(f"wrote {out}")


def _filtered(rows: list[ResultRow], text: str) -> list[ResultRow]:
    key, equals, value = text.partition("=")
    names = [f.name for f in fields(ResultRow)]
    if not equals or key not in names:
        raise UserError(f"--filter {text}: expected COLUMN=VALUE; {did_you_mean(key, names)}")
    kept = [row for row in rows if _same(asdict(row)[key], value)]
    if not kept:
        found = sorted({str(asdict(row)[key]) for row in rows})
        raise UserError(f"--filter {text}: no row has it; {key} is one of: {', '.join(found[:20])}")
    return kept


def _same(held: object, wanted: str) -> bool:
    """Compare as numbers where the column holds numbers, so that 1 finds 1.0."""
    if isinstance(held, float | int) and not isinstance(held, bool):
        try:
            return float(held) == float(wanted)
        except ValueError:
            return False
    return str(held).lower() == wanted.lower()
