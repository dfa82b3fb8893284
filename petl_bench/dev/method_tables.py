"""Tables of adapter methods for the pages in docs/methods: settings, sizes, tuned values and an index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from petl_bench.config import group_config
from petl_bench.errors import UserError
from petl_bench.model.costs import Cost, costs
from petl_bench.types.method_facts import method, methods


def settings_table(names: Iterable[str]) -> str:
    """Return the table of the own settings of methods.

    Args:
        names: names of methods; each has a column of defaults, `-` for settings that it lacks.
    """
    declared = [method(name) for name in names]
    help = {key: known.help for each in declared for key, known in each.settings.items()}
    if not help:
        return "None.\n"
    rows = [["Setting", *(f"`{each.name}`" for each in declared), "Description"]]
    rows += [
        [
            f"`adapter.{key}`",
            *(_value(each.defaults[key]) if key in each.defaults else "-" for each in declared),
            text,
        ]
        for key, text in help.items()
    ]
    return _markdown(rows)


def sizes_table(names: Iterable[str]) -> str:
    """Return the table of the sizes of some methods on ViT-B/16 with their default settings."""
    rows = [["Adapter", "hidden", "Trainable parameters", "Bytes at 1 bit", "Bytes at 32 bits"]]
    return _markdown(rows + [[f"`{name}`", *_numbers(_costs()[name])] for name in names])


def tuned_table(names: Iterable[str]) -> str:
    """Return the table of the scales and learning rates of methods on the bundled suite.

    Those of the preset `compact` are shown where they were chosen for it.
    """
    wanted = list(names)
    found: list[tuple[str, str, Mapping[str, float]]] = []
    for file, preset in (("pocket", ""), ("pocket_compact", ", preset `compact`")):
        tables = group_config("tuned", file)["tables"]
        own = [table for table in tables if table["adapter"] in wanted and not _copied(table)]
        for table in own:
            others = [key for key in table if key not in ("adapter", "note", "scales", "lrs")]
            told = "".join(f", `{key}={_text(table[key])}`" for key in others)
            found += [
                (f"`{table['adapter']}`{preset}{told}", kind, table[f"{kind}s"])
                for kind in ("scale", "lr")
                if f"{kind}s" in table
            ]
    if not found:
        return "None.\n"
    tasks = list(found[0][2])
    rows = [["Adapter", "Setting", *(f"`{task}`" for task in tasks)]]
    labels = {"scale": "`scale`", "lr": "`train.lr`"}
    return _markdown(
        rows
        + [[name, labels[kind], *(f"{values[task]:g}" for task in tasks)] for name, kind, values in found]
    )


def _copied(table: Mapping[str, Any]) -> bool:
    """Return whether a table of conf/tuned has the values of another file."""
    return str(table.get("note", "")).startswith("that of ")


def published_table(names: Iterable[str]) -> str:
    """Return the table of the scales of methods in `conf/tuned/vtab.yaml`, the tasks grouped by scale."""
    wanted = list(names)
    rows = [["Adapter", "Placement", "Chosen with", "`scale`", "Tasks `vtab_...`"]]
    for table in group_config("tuned", "vtab")["tables"]:
        if table["adapter"] not in wanted:
            continue
        place = [f"`{key}={_text(v)}`" for key, v in table.items() if key.startswith("adapter.")]
        chosen = [f"`{each}`" for each in table["note"].removeprefix("chosen with ").split()]
        for scale in sorted(set(table["scales"].values())):
            tasks = [task.removeprefix("vtab_") for task, s in table["scales"].items() if s == scale]
            cells = [" ".join(place), " ".join(chosen), f"{scale:g}", ", ".join(tasks)]
            rows.append([f"`{table['adapter']}`", *cells])
    if not any(row[1] for row in rows[1:]):
        rows = [[adapter, *others] for adapter, _, *others in rows]
    return _markdown(rows)


def index_table(folder: Path) -> str:
    """Return the table of all methods with links to their pages.

    Args:
        folder: folder of the pages; the page of a method is the one that shows its settings.

    Raises:
        UserError: a method has no page.
    """
    pages = {
        name: page.name
        for page in sorted(folder.glob("*.md"))
        for names in re.findall(r"<!-- method_settings (.+?) -->", page.read_text(encoding="utf-8"))
        for name in names.split()
    }
    rows = [["Adapter", "Group", "hidden", "Trainable parameters", "Bytes at 1 bit", "Bytes at 32 bits"]]
    rows[0].append("Description")
    for name, each in methods().items():
        if name not in pages:
            raise UserError(f"{folder}: no page has a block `<!-- method_settings {name} -->`")
        link = f"[`{name}`]({pages[name]})"
        rows.append([link, each.group, *_numbers(_costs()[name]), each.description])
    return _markdown(rows)


@cache
def _costs() -> dict[str, Cost]:
    return {cost.name: cost for cost in costs(methods())}


def _numbers(cost: Cost) -> list[str]:
    return [f"{n:,}" for n in (cost.hidden, cost.params, cost.bytes_1_bit, cost.bytes_32_bit)]


def _value(value: object) -> str:
    return f"`{_text(value)}`"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _markdown(rows: list[list[str]]) -> str:
    marks = ["--:" if re.fullmatch(r"[\d,.]+", cell) else ":--" for cell in rows[1]]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], marks, *rows[1:]))
