"""Variants of a cell: runs of one configuration on one task that differ in what a protocol has to choose.

They are counted over the whole store, whatever a filter leaves to be seen: of several variants the one that
is shown may have been picked by its accuracy on test images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from petl_bench.report.settings import CHOSEN, REPETITIONS, ROW_SETTINGS, TABLE_SETTINGS
from petl_bench.types import ResultRow

CELL = [
    *(name for name in [*TABLE_SETTINGS, *ROW_SETTINGS] if name not in (*CHOSEN, "altered")),
    *("data_override", "task"),
]
"""Settings of a cell: what a reader compares, besides seeds and draws."""
TRIED = "‡"
"""Mark of accuracies of cells that the store holds in several variants."""
MOST = 8
"""Values of one setting that are named."""


@dataclass
class Variants:
    """Variants of one cell.

    Attributes:
        count: number of variants; where it is larger, the number of runs of one seed and draw.
        values: settings that have several values, with these.
    """

    count: int = 1
    values: dict[str, list[str]] = field(default_factory=dict)


def variants(rows: Iterable[ResultRow]) -> dict[str, Variants]:
    """Return the variants of the cell of each run.

    Args:
        rows: all runs of a store.

    Returns:
        Variants by run_id; runs of one cell share an object.
    """
    cells: dict[tuple[object, ...], list[ResultRow]] = defaultdict(list)
    for row in rows:
        held = vars(row)
        cells[tuple(held[name] for name in CELL)].append(row)
    return {row.run_id: known for members in cells.values() for known in [_count(members)] for row in members}


def _count(members: Sequence[ResultRow]) -> Variants:
    if len(members) == 1:
        return Variants()
    # The scale and rate of a sealed run follow from its search, which `searched` describes.
    sealed = members[0].protocol == "sealed"
    names = [name for name in CHOSEN if name not in (("scale", "lr") if sealed else ("searched",))]
    held = [vars(row) for row in members]
    different = {tuple(values[name] for name in names) for values in held}
    seeds: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for values in held:
        seeds[tuple(values[name] for name in REPETITIONS)].add(values["run_id"])
    repeated = max(map(len, seeds.values()))
    columns = dict(zip(names, zip(*different, strict=True), strict=True))
    return Variants(
        max(len(different), repeated),
        {name: _texts(column) for name, column in columns.items() if len({*column}) > 1},
    )


def _texts(column: Iterable[object]) -> list[str]:
    numbers = sorted({value for value in column if isinstance(value, int | float)})
    texts = sorted(
        {
            "unknown" if value is None else str(value) or "none"
            for value in column
            if not isinstance(value, int | float)
        }
    )
    return [*(f"{number:g}" for number in numbers), *texts]


def remark(found: Iterable[Variants]) -> str:
    """Describe the variants of the cells of a table; empty where no cell has several.

    Args:
        found: variants of its cells.
    """
    several = [known for known in found if known.count > 1]
    if not several:
        return ""
    values: dict[str, dict[str, None]] = {}
    for known in several:
        for name, texts in known.values.items():
            values.setdefault(CHOSEN[name], {}).update(dict.fromkeys(texts))
    named = " and ".join(f"{name} ({_few([*texts])})" for name, texts in values.items())
    most = max(known.count for known in several)
    return (
        f"accuracies marked {TRIED} are of cells that the store holds in up to {most} variants, which differ "
        f"in {named or 'weights, data or settings that no column shows'}: a variant picked by its test "
        "accuracy looks better than it is"
    )


def _few(texts: Sequence[str]) -> str:
    return ", ".join([*texts[:MOST], *(["..."] if len(texts) > MOST else [])])


def counts(found: Mapping[str, Variants]) -> dict[str, int]:
    """Return the number of variants of each run's cell."""
    return {run_id: known.count for run_id, known in found.items()}
