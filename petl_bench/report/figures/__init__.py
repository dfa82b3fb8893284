"""Figures of tables. Importing this package imports matplotlib, which takes a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from petl_bench.report.figures.curves import accuracy_bits, accuracy_hidden, accuracy_shots
from petl_bench.report.figures.differences import task_differences
from petl_bench.report.figures.ranks import critical_difference
from petl_bench.report.figures.sizes import accuracy_bytes
from petl_bench.report.figures.style import Figure, brief, slug
from petl_bench.report.labels import title
from petl_bench.report.pairs import Pair
from petl_bench.report.statistics import Ranking
from petl_bench.report.tables import Table
from petl_bench.report.variants import TRIED

__all__ = ["Figure", "figures"]


def figures(
    tables: Sequence[Table],
    margin: float,
    rankings: Mapping[int, Ranking] | None = None,
    pairs: Sequence[Sequence[Pair]] = (),
    asked: bool = False,
) -> list[Figure]:
    """Return all figures that apply to these tables, table by table; figures that join tables come last.

    Args:
        tables: all tables of a report.
        margin: largest difference that counts as equivalent, a fraction such as 0.01.
        rankings: rankings by the number of their table in `tables`.
        pairs: rows of each table that are compared; empty to leave their figures out.
        asked: whether the reader asked for these pairs; otherwise they are of bit-widths.
    """
    found: list[Figure | None] = []
    for number, full in enumerate(tables):
        table = _abbreviated(full)
        stem, context = _stem(table, tables), _context(table, tables)
        found.append(accuracy_bytes(table, stem, context))
        found += [*accuracy_bits(table, stem, context), *accuracy_hidden(table, stem, context)]
        if rankings and number in rankings:
            found.append(critical_difference(rankings[number], len(table.tasks), stem, context))
        if pairs:
            short = {id(row): other for row, other in zip(full.rows, table.rows, strict=True)}
            own = [(short[id(row)], short[id(against)]) for row, against in pairs[number]]
            found += task_differences(own, table, stem, context, margin, asked)
    for joined in _by_shots([_abbreviated(table) for table in tables]):
        plain = replace(joined[0], key=joined[0].key | {"shots": 0})
        one = len({table.key["recipe"] for table in joined}) == 1  # else the title names no recipe
        others = tables if one else [plain]
        found += accuracy_shots(joined, _stem(plain, others), _context(plain, others))
    return _named_apart([figure for figure in found if figure])


def _context(table: Table, tables: Sequence[Table]) -> str:
    tried = f", {TRIED} held in several variants" if any(row.tried for row in table.rows) else ""
    return brief(title(table, tables) + tried, 50)


def _abbreviated(table: Table) -> Table:
    """Return a table whose settings are short enough for a figure; texts that become equal are numbered."""
    short: dict[tuple[str, str], str] = {}
    for row in table.rows:
        for name, value in row.key.items():
            if isinstance(value, str) and (name, value) not in short:
                text, count = brief(value), 1
                while text in [short[other] for other in short if other[0] == name]:
                    count += 1
                    text = f"{brief(value)} ({count})"
                short[name, value] = text
    rows = [
        replace(row, key={name: short.get((name, value), value) for name, value in row.key.items()})
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _by_shots(tables: Sequence[Table]) -> list[list[Table]]:
    """Group few-shot tables that differ only in shots, fewest first; recipes are grouped separately."""
    groups: dict[object, list[Table]] = {}
    for table in tables:
        if table.key["shots"]:
            groups.setdefault(_without(table, {"shots", "recipe"}), []).append(table)
    joined = []
    for group in groups.values():
        parts: dict[object, list[Table]] = {}
        several = len({table.key["shots"] for table in group}) < len(group)
        for table in group:
            parts.setdefault(table.key["recipe"] if several else "", []).append(table)
        joined += [sorted(part, key=lambda table: int(table.key["shots"])) for part in parts.values()]
    return joined


def _without(table: Table, names: set[str]) -> object:
    """Return what tables must share to be joined: all other settings, and the settings of their rows."""
    kept = tuple((name, value) for name, value in table.key.items() if name not in names)
    return kept, tuple(table.rows[0].key)


def _stem(table: Table, tables: Sequence[Table]) -> str:
    """Return the first part of file names, `pocket-fixed-bf16`: suite, protocol and other settings."""
    key = table.key
    differing = [
        name for name in ("epochs", "normalization", "recipe") if len({t.key[name] for t in tables}) > 1
    ]
    parts = [
        key["suite"],
        key["protocol"],
        f"rungs {key['rungs']}" if key["rungs"] else "",
        key["precision"] if key["precision"] != "fp32" else "",
        *(f"{name} {key[name]}" for name in differing),
        f"shots {key['shots']}" if key["shots"] else "",
        "altered" if key["altered"] else "",
    ]
    return "-".join(filter(None, (slug(str(part))[:40] for part in parts)))


def _named_apart(found: Sequence[Figure]) -> list[Figure]:
    """Number equal names: names of suites may differ only in characters that file names cannot have."""
    taken: set[str] = set()
    named = []
    for figure in found:
        name, count = figure.name, 1
        while name in taken:
            count += 1
            name = f"{figure.name}-v{count}"
        taken.add(name)
        named.append(replace(figure, name=name))
    return named
