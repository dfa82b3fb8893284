"""What every form of a table shows: its title, the labels of its lines, its columns, best and second best."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from petl_bench.errors import counted
from petl_bench.report.settings import ALWAYS_SHOWN, NAMED_BY_VALUE, OFF_BY_DEFAULT, USUAL, WITHOUT_ADAPTER
from petl_bench.report.tables import BYTES, Line, Statistic, Table

HOLE = "-"
PEEK = "†"
SIZES = ["adapter bytes", "adapter raw", "head bytes", "overhead bytes", "file bytes"]
"""Names of BYTES in a table."""


@dataclass(frozen=True)
class Cell:
    text: str
    rank: int = 0
    """1: best of its column, 2: second best, 0: neither."""


@dataclass(frozen=True)
class Column:
    """One column of a table, a cell a line."""

    name: str
    cells: list[Cell]
    over: str = ""
    """Heading over neighbouring columns: the group of the tasks."""


@dataclass(frozen=True)
class Grid:
    """A printed table: what it is of, and its columns."""

    title: str
    columns: list[Column]

    @property
    def lines(self) -> list[tuple[Cell, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


def grids(table: Table, tables: Sequence[Table]) -> list[Grid]:
    """Three of them, narrow enough to read: accuracy by task, averages, costs."""
    mark = f" {PEEK}" if table.key["protocol"] == "peek" else ""
    return [
        Grid(f"{heading(table)}, {title(table, tables)}", [*labels(table), *accuracies(table)]),
        Grid(
            f"Averages (%) over groups and tasks{mark}",
            [*labels(table), *averages(table), *counts(table)],
        ),
        Grid(
            "Bytes of one task's adapter file, trained parameters and time, means over the tasks run",
            [*labels(table), *costs(table)],
        ),
    ]


def heading(table: Table) -> str:
    """What the accuracies of a table are."""
    peek = table.key["protocol"] == "peek"
    return f"Best test accuracy seen (%) {PEEK}" if peek else "Test accuracy (%)"


def title(table: Table, tables: Sequence[Table]) -> str:
    """What all rows of a table have in common, as far as a reader must know it.

    Args:
        tables: all tables of the report, among which it has to be told apart.
    """
    key = table.key
    parts = [f"suite {key['suite']}"]
    backbones = {line.key["backbone"] for line in table.lines}
    parts += [f"backbone {backbone}" for backbone in backbones if len(backbones) == 1]
    for name, usual in USUAL.items():
        held = {setting(line, name) for line in table.lines} - {HOLE}
        parts += [f"{name} {value}" for value in held if len(held) == 1 and value != usual]
    parts += [f"protocol {key['protocol']}"]
    parts += [f"rungs {key['rungs']}"] if key["rungs"] else []
    parts += [key["precision"]] if key["precision"] != "fp32" or _differ(tables, "precision") else []
    parts += [f"{key['epochs']} epochs"]
    parts += [counted(key["shots"], "shot")] if key["shots"] else []
    parts += [f"pixel normalization {key['normalization']}"]
    parts += [f"recipe {key['recipe']}"] if _differ(tables, "recipe") else []
    parts += ["altered data"] if key["altered"] else []
    return ", ".join(parts)


def legend(table: Table, marks: str) -> str:
    """What marks and the sign ± in a table mean; empty where it has neither.

    Args:
        marks: how this form shows best and second best.
    """
    shown = [*accuracies(table), *averages(table)]
    parts = [f"{marks} of a column"] if any(cell.rank for column in shown for cell in column.cells) else []
    several = any(value.std is not None for line in table.lines for value in line.tasks.values())
    parts += [f"±: standard deviation over {table.repetition}"] if several else []
    return "; ".join(parts)


def label(line: Line, table: Table, without: Collection[str] = ()) -> str:
    """A line in words: `adaptformer h16, 1 bit`, and what else tells it from the others.

    Args:
        without: settings to leave out.
    """
    shown = {name: setting(line, name) for name in _shown(table) if name not in without}
    parts = [] if "adapter" in without else [str(line.key["adapter"])]
    if shown.pop("hidden", HOLE) != HOLE:
        parts = [" ".join([*parts, f"h{line.key['hidden']}"])]
    if shown.pop("bits", HOLE) != HOLE:
        parts.append(counted(line.key["bits"], "bit"))
    parts += [
        text if name in NAMED_BY_VALUE else f"{name} {text}" for name, text in shown.items() if text != HOLE
    ]
    return ", ".join(parts)


def printable(text: str) -> str:
    """Text on one line, without control characters: no name can move a terminal's cursor or end a row."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def labels(table: Table) -> list[Column]:
    """Which configuration a line is: adapter, hidden and bits, and other settings where they differ."""
    return [
        Column(name, [Cell(setting(line, name)) for line in table.lines])
        for name in ["adapter", *_shown(table)]
    ]


def accuracies(table: Table) -> list[Column]:
    """A column of percents a task, in the benchmark's order."""
    prefix = f"{table.key['suite']}_"
    return [
        percents(task.name.removeprefix(prefix), [line.tasks[task.name] for line in table.lines], task.group)
        for task in table.tasks
    ]


def averages(table: Table) -> list[Column]:
    """Group means, the headline, the mean of all tasks."""
    lines = table.lines
    columns = [percents(group, [line.groups[group] for line in lines]) for group in table.groups]
    columns += [
        percents("mean of groups", [line.mean_of_groups for line in lines]),
        percents(f"mean of {counted(len(table.tasks), 'task')}", [line.mean_of_tasks for line in lines]),
    ]
    last = [Cell(percent(line.last_epoch)) for line in lines if line.last_epoch]
    return [*columns, *([Column("mean of groups, last epoch", last)] if last else [])]


def counts(table: Table) -> list[Column]:
    """Tasks that have results, and repetitions a task (from, to): seeds, or seeds times draws."""
    what = "seeds" if table.repetition == "seeds" else "runs"
    return [
        Column("tasks", [Cell(line.complete) for line in table.lines]),
        Column(what, [Cell(_seeds(line)) for line in table.lines]),
    ]


def costs(table: Table) -> list[Column]:
    """Bytes by part, bits a weight, trained parameters and seconds: means over the tasks run."""
    columns = [
        Column(shown, [Cell(f"{line.bytes[name]:,.0f}") for line in table.lines])
        for shown, name in zip(SIZES, BYTES, strict=True)
    ]
    return [
        *columns,
        Column("bits a weight", [Cell(_bits(line)) for line in table.lines]),
        Column("trained parameters", [Cell(f"{line.params_trainable:,.0f}") for line in table.lines]),
        Column("seconds a run", [Cell(f"{line.seconds:,.1f}") for line in table.lines]),
        Column("tasks", [Cell(line.complete) for line in table.lines]),
    ]


def percent(value: Statistic) -> str:
    """`83.1 ± 0.4`: mean and standard deviation; without deviation at n = 1."""
    if value.mean is None:
        return HOLE
    spread = "" if value.std is None else f" ± {100 * value.std:.1f}"
    return f"{100 * value.mean:.1f}{spread}"


def setting(line: Line, name: str) -> str:
    """A setting as text; a hole where the method does not have it."""
    if line.key["hidden"] == 0 and name not in WITHOUT_ADAPTER:
        return HOLE
    if name == "quantizer" and line.key["quantizer"] == "none":
        return HOLE
    if line.key[name] is None or (name in OFF_BY_DEFAULT and not line.key[name]):
        return HOLE
    return str(line.key[name])


def _differ(tables: Sequence[Table], name: str) -> bool:
    return len({table.key[name] for table in tables}) > 1


def _shown(table: Table) -> list[str]:
    """Settings worth a column: bits and hidden always, the others where they differ."""
    names = [name for name in table.lines[0].key if name != "adapter"]
    varied = {name for name in names if len({setting(line, name) for line in table.lines} - {HOLE}) > 1}
    varied |= {name for name in OFF_BY_DEFAULT if any(line.key[name] for line in table.lines)}
    return [name for name in names if name in varied | ALWAYS_SHOWN]


def percents(name: str, values: Sequence[Statistic], over: str = "") -> Column:
    """A column of means, best and second best marked; a hole where there is none."""
    ranks = _ranks([value.mean for value in values])
    return Column(name, [Cell(percent(value), rank) for value, rank in zip(values, ranks, strict=True)], over)


def _ranks(means: Sequence[float | None]) -> list[int]:
    """1 for the best, 2 for the second best as printed: equal numbers share a rank; none where all are equal.

    A second best is marked among three or more values only.
    """
    shown = [None if mean is None else round(100 * mean, 1) for mean in means]
    values = sorted({value for value in shown if value is not None}, reverse=True)
    held = sum(value is not None for value in shown)
    marked = values[: 0 if len(values) < 2 else 1 if held < 3 else 2]
    return [marked.index(value) + 1 if value is not None and value in marked else 0 for value in shown]


def _seeds(line: Line) -> str:
    found = sorted({value.n for value in line.tasks.values() if value.n})
    return "-".join(str(count) for count in dict.fromkeys([found[0], found[-1]])) if found else "0"


def _bits(line: Line) -> str:
    return HOLE if line.bits_per_weight is None else f"{line.bits_per_weight:.2f}"
