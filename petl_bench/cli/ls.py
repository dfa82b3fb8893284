"""`petl-bench ls`: what can be named in an override."""

from __future__ import annotations

import fnmatch
from enum import StrEnum
from typing import Annotated, Any

import typer

from petl_bench.cli.common import JsonOption, note, print_json


class Kind(StrEnum):
    backbones = "backbones"
    adapters = "adapters"
    quantizers = "quantizers"
    heads = "heads"
    tasks = "tasks"
    protocols = "protocols"
    sweeps = "sweeps"


def ls(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[str, typer.Argument(help="Only names that match, for example 'sprites_*'.")] = "*",
    json: JsonOption = False,
) -> None:
    """List backbones, adapters, quantizers, heads, tasks, protocols or sweeps by name."""
    entries = [entry for entry in _entries(kind) if fnmatch.fnmatch(entry["name"], pattern)]
    if not entries:
        note(f"no {kind.value} match {pattern!r}")
    width = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        if json:
            print_json(entry)
        else:
            print(f"{entry['name']:<{width}}  {_describe(entry)}".rstrip())


def _entries(kind: Kind) -> list[dict[str, Any]]:
    from petl_bench.config import description, manifests, options

    if kind is Kind.tasks:
        return [
            {"name": t.name, "suite": t.suite, "group": t.group, "classes": t.classes, "splits": t.splits}
            | {"description": t.about.get("title", "")}
            for t in manifests().values()
        ]
    group = kind.value.removesuffix("s")
    return [{"name": name, "description": description(group, name)} for name in options(group)]


def _describe(entry: dict[str, Any]) -> str:
    if "suite" not in entry:
        return str(entry["description"])
    facts = f"{entry['suite']}/{entry['group']}"
    if entry["classes"]:
        facts += f", {entry['classes']} classes, {entry['splits']['test']} test images"
    return f"{facts}: {entry['description']}"
