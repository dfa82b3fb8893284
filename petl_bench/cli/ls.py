"""`petl-bench ls`: names and keys that overrides can use."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from petl_bench import plugins
from petl_bench.cli.common import note, print_json, say, say_within
from petl_bench.cli.options import JsonOption
from petl_bench.errors import counted, shown
from petl_bench.layout import READABLE, Column, table_lines, terminal_width
from petl_bench.plugins import Plugin


class Kind(StrEnum):
    backbones = "backbones"
    adapters = "adapters"
    quantizers = "quantizers"
    heads = "heads"
    tasks = "tasks"
    protocols = "protocols"
    presets = "presets"
    sweeps = "sweeps"
    train = "train"
    launchers = "launchers"
    tuned = "tuned"
    plugins = "plugins"
    keys = "keys"


SCHEMAS = {
    Kind.tasks: "ls-tasks/1",
    Kind.adapters: "ls-adapters/1",
    Kind.plugins: "ls-plugins/1",
    Kind.keys: "ls-keys/1",
}
"""Schemas of kinds whose entries have more than names and descriptions."""


def ls(
    kind: Annotated[Kind, typer.Argument(help="Group to list.")],
    pattern: Annotated[
        str,
        typer.Argument(help="Names to list: a pattern such as 'sprites_*', or a part of them such as lr."),
    ] = "*",
    as_json: JsonOption = False,
) -> None:
    """List adapters, backbones, tasks and other names, or all settings.

    The names can be used in overrides of `petl-bench sweep`; those of plug-ins are marked. For `keys`, the
    defaults and the allowed values of all settings are listed, and for `plugins` what each plug-in adds.
    """
    wanted = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    entries = [entry for entry in _entries(kind) if fnmatch.fnmatch(entry["name"], wanted)]
    if not entries:
        note(f"no {kind.value} match {pattern!r}")
    elif kind is Kind.adapters:
        entries = _with_costs(entries)
    if as_json:
        for entry in entries:
            print_json(SCHEMAS.get(kind, "ls/1"), entry)
        return
    lines, width = [[entry["name"], *_facts(entry)] for entry in entries], terminal_width()
    if lines and kind is Kind.adapters and width is not None:
        _table(lines, width)
    elif lines:
        _columns(lines, width)


def _entries(kind: Kind) -> list[dict[str, Any]]:
    from petl_bench.config import description, options, owner
    from petl_bench.data import manifests

    if kind is Kind.plugins:
        return _plugins()
    if kind is Kind.tasks:
        return [
            {"name": t.name, "suite": t.suite, "group": t.group, "classes": t.classes, "splits": t.splits}
            | {"description": t.about.get("title", "")}
            | _from(owner("task", t.name))
            for t in manifests().values()
        ]
    if kind is Kind.keys:
        return _keys()
    group = kind.value.removesuffix("s")
    return [
        {"name": name, "description": description(group, name)} | _from(owner(group, name))
        for name in options(group)
    ]


def _from(plugin: Plugin | None) -> dict[str, str]:
    """Return what says that an entry is that of a plug-in."""
    return {"plugin": plugin.label} if plugin is not None else {}


def _plugins() -> list[dict[str, Any]]:
    """Return the plug-ins in use, with what they add and the faults of those files that cannot be used."""
    return [
        {"name": plugin.name, "version": plugin.version, "digest": plugin.digest}
        | {"folder": str(plugin.folder), "adds": plugin.additions}
        for plugin in plugins.active()
    ]


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
    from petl_bench.adapters import ADAPTERS
    from petl_bench.model.costs import costs

    entries = [entry for entry in entries if entry["name"] in ADAPTERS]  # the file of others has a fault
    found = costs([entry["name"] for entry in entries])
    return [asdict(cost) | entry for cost, entry in zip(found, entries, strict=True)]


def _facts(entry: dict[str, Any]) -> list[str]:
    """Return the columns after the name."""
    if "params" in entry:
        numbers = ("params", "bytes_1_bit", "bytes_32_bit")
        return [entry["group"], *(f"{entry[key]:,}" for key in numbers), _described(entry)]
    if "allowed" in entry:
        default = "" if entry["default"] is None else json.dumps(entry["default"])
        return [
            entry["option"],
            default,
            entry["description"] + (f" ({entry['allowed']})" if entry["allowed"] else ""),
        ]
    if "adds" in entry:
        return [entry["version"], entry["digest"], f"{entry['folder']}: {', '.join(entry['adds'])}"]
    if "suite" not in entry:
        return [_described(entry)]
    facts = f"{entry['suite']}/{entry['group']}"
    if entry["classes"]:
        facts += f", {counted(entry['classes'], 'class')}, {counted(entry['splits']['test'], 'test image')}"
    return [f"{facts}: {_described(entry)}"]


def _described(entry: dict[str, Any]) -> str:
    """Return the description of an entry, and the plug-in that it comes from."""
    return entry["description"] + (f" (plug-in {entry['plugin']})" if "plugin" in entry else "")


def _columns(lines: list[list[str]], width: int | None) -> None:
    """Print aligned columns, with numbers right-aligned.

    Within a width, the last column is wrapped, or stands below the others where it would be narrow.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        *padded, last = [
            f"{cell:>{size}}" if cell.replace(",", "").isdigit() else f"{cell:<{size}}"
            for cell, size in zip(line, widths, strict=True)
        ]
        first = "".join(f"{cell}  " for cell in padded)
        if width is None or width - len(first) >= READABLE:
            say_within(width, f"{first}{last}".rstrip(), indent=" " * len(first))
        else:
            say_within(width, first.rstrip(), f"    {last}".rstrip(), indent=" " * 4)


def _table(lines: list[list[str]], width: int) -> None:
    names = ("name", "group", "parameters", "bytes at 1 bit", "at 32 bits", "description")
    columns = [
        Column(name, list(map(shown, cells)), left=number in (0, 1, 5))
        for number, (name, cells) in enumerate(zip(names, zip(*lines, strict=True), strict=True))
    ]
    say(*table_lines(columns, width=width))
    about = "trainable parameters and bytes on ViT-B/16 with the default settings, without the head"
    say_within(width, about)
