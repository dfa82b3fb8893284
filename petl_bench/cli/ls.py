"""`petl-bench ls`: names and keys that overrides can use."""

from __future__ import annotations

import fnmatch
import json
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from petl_bench.cli.common import JsonOption, cells, note, print_json, say
from petl_bench.errors import counted


class Kind(StrEnum):
    backbones = "backbones"
    adapters = "adapters"
    quantizers = "quantizers"
    heads = "heads"
    tasks = "tasks"
    protocols = "protocols"
    sweeps = "sweeps"
    train = "train"
    launchers = "launchers"
    tuned = "tuned"
    keys = "keys"


def ls(
    kind: Annotated[Kind, typer.Argument(help="Group to list.")],
    pattern: Annotated[str, typer.Argument(help="List only names that match, e.g. 'sprites_*'.")] = "*",
    as_json: JsonOption = False,
) -> None:
    """List adapters, backbones, tasks and other names, or all settings.

    The names can be used in overrides of `petl-bench sweep`. For `keys`, the defaults and the allowed values
    of all settings are listed.
    """
    entries = [entry for entry in _entries(kind) if fnmatch.fnmatch(entry["name"], pattern)]
    if not entries:
        note(f"no {kind.value} match {pattern!r}")
    elif kind is Kind.adapters:
        entries = _with_costs(entries)
    if as_json:
        for entry in entries:
            print_json(entry)
    elif kind is Kind.adapters and sys.stdout.isatty():
        _table(entries)
    else:
        _columns([[entry["name"], *_facts(entry)] for entry in entries])


def _entries(kind: Kind) -> list[dict[str, Any]]:
    from petl_bench.config import description, options
    from petl_bench.data import manifests

    if kind is Kind.tasks:
        return [
            {"name": t.name, "suite": t.suite, "group": t.group, "classes": t.classes, "splits": t.splits}
            | {"description": t.about.get("title", "")}
            for t in manifests().values()
        ]
    if kind is Kind.keys:
        return _keys()
    group = kind.value.removesuffix("s")
    return [{"name": name, "description": description(group, name)} for name in options(group)]


def _keys() -> list[dict[str, Any]]:
    """Return the keys of settings; without a default those that a file of their group states."""
    from petl_bench.config import keys

    names = ("name", "option", "default", "allowed", "description")
    return [
        dict(zip(names, (k.name, k.option, k.default, k.setting.right, k.setting.help), strict=True))
        for k in keys()
    ]


def _with_costs(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of adapters with their costs before the descriptions."""
    from petl_bench.model.costs import costs

    found = costs([entry["name"] for entry in entries])
    return [asdict(cost) | entry for cost, entry in zip(found, entries, strict=True)]


def _facts(entry: dict[str, Any]) -> list[str]:
    """Return the columns after the name."""
    if "params" in entry:
        numbers = ("params", "bytes_1_bit", "bytes_32_bit")
        return [entry["group"], *(f"{entry[key]:,}" for key in numbers), entry["description"]]
    if "allowed" in entry:
        default = "" if entry["default"] is None else json.dumps(entry["default"])
        return [
            entry["option"],
            default,
            entry["description"] + (f" ({entry['allowed']})" if entry["allowed"] else ""),
        ]
    if "suite" not in entry:
        return [entry["description"]]
    facts = f"{entry['suite']}/{entry['group']}"
    if entry["classes"]:
        facts += f", {counted(entry['classes'], 'class')}, {counted(entry['splits']['test'], 'test image')}"
    return [f"{facts}: {entry['description']}"]


def _columns(lines: list[list[str]]) -> None:
    """Print aligned columns, with numbers right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [
            f"{cell:>{width}}" if cell.replace(",", "").isdigit() else f"{cell:<{width}}"
            for cell, width in zip(line, widths, strict=True)
        ]
        say("  ".join(padded).rstrip())


def _table(entries: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("name", "group"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "bytes at 1 bit", "at 32 bits"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("description", overflow="fold")
    for entry in entries:
        table.add_row(*cells(entry["name"], *_facts(entry)))
    console = Console(width=120, highlight=False)
    console.print(table, markup=False)
    console.print("trainable parameters and bytes on ViT-B/16 with the default settings, without the head")
