"""Titles of tables and labels of rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from petl_bench.errors import counted
from petl_bench.report.settings import NAMED_BY_VALUE, USUAL
from petl_bench.report.suites import part_name
from petl_bench.report.tables import BLANK, Row, Table, setting
from petl_bench.report.variants import TRIED

PEEK = "†"
"""Mark of accuracies that are the best of several evaluations on the test images."""


def heading(table: Table) -> str:
    """Return the name of the accuracies that a table shows."""
    peek = table.key["protocol"] == "peek"
    return f"Best test accuracy seen (%) {PEEK}" if peek else "Test accuracy (%)"


def part_of_suite(table: Table) -> str:
    """Return the name of the part of a suite that a table is of, `2 of 5 tasks: digits, surfaces`, or ""."""
    return part_name(table.key["suite"], table.tasks, table.lacking)


def title(table: Table, tables: Sequence[Table]) -> str:
    """Describe the settings that all rows of a table have in common, as far as a reader needs them.

    Args:
        table: the table to describe.
        tables: all tables of the report, from which the title has to tell it apart.
    """
    key = table.key
    part = part_of_suite(table)
    parts = [f"suite {key['suite']}" + (f" ({part})" if part else "")]
    backbones = {row.key["backbone"] for row in table.rows}
    parts += [f"backbone {backbone}" for backbone in backbones if len(backbones) == 1]
    sizes = {row.key["image_size"] for row in table.rows} - {None}
    parts += [f"image size {size}" for size in sizes if len(sizes) == 1]
    for name, usual in USUAL.items():
        held = {setting(row, name) for row in table.rows} - {BLANK}
        parts += [f"{name} {value}" for value in held if len(held) == 1 and value != str(usual)]
    parts += [f"protocol {key['protocol']}"]
    parts += [f"rungs {key['rungs']}"] if key["rungs"] else []
    parts += [key["precision"]] if key["precision"] != "fp32" or _differ(tables, "precision") else []
    parts += [counted(key["epochs"], "epoch")]
    parts += [counted(key["shots"], "shot")] if key["shots"] else []
    parts += [f"pixel normalization {key['normalization']}"]
    parts += _recipe(table, tables)
    parts += ["altered data"] if key["altered"] else []
    return ", ".join(parts)


def label(row: Row, table: Table, without: Collection[str] = ()) -> str:
    """Describe a row in words: `adaptformer h16, 1 bit`, and what else tells it from the other rows.

    Args:
        row: a row of the table.
        table: the table, whose rows the label tells apart.
        without: settings to leave out; such a part of a label has no mark.
    """
    shown = {name: setting(row, name) for name in table.shown_settings if name not in without}
    parts = [] if "adapter" in without else [str(row.key["adapter"])]
    if shown.pop("hidden", BLANK) != BLANK:
        parts = [" ".join([*parts, f"h{row.key['hidden']}"])]
    if shown.pop("bits", BLANK) != BLANK:
        parts.append(counted(row.key["bits"], "bit"))
    parts += [
        text if name in NAMED_BY_VALUE else f"{name} {text}" for name, text in shown.items() if text != BLANK
    ]
    return ", ".join(parts) + (f" {TRIED}" if row.tried and not without else "")


def printable(text: str) -> str:
    """Return text on one line without control characters, so that no name can steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _recipe(table: Table, tables: Sequence[Table]) -> list[str]:
    """Return the name of a table's recipe, unless it is that of the suite and no table has another."""
    key = table.key
    name = key.get("recipe_name", "")
    if not _differ(tables, "recipe") and name in ("", key["suite"]):
        return []
    same = [other.key for other in tables if other.key.get("recipe_name", "") == name]
    others = {held["recipe"] for held in same} - {key["recipe"]}
    return [f"recipe {name} ({key['recipe']})" if name and others else f"recipe {name or key['recipe']}"]


def _differ(tables: Sequence[Table], name: str) -> bool:
    return len({table.key[name] for table in tables}) > 1
