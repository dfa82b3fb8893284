"""Output of `petl-bench sweep --dry-run`: the planned runs with their recipe, and their time and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from petl_bench.cli.common import duration, flat, print_json, say, say_within, usable_rows
from petl_bench.cli.devices import device_line, devices_of, memory_lines
from petl_bench.cli.estimate import SHOWN_WHERE_VARIED, Costs, cell_of, kind_of
from petl_bench.cli.planning import Prepared
from petl_bench.errors import counted
from petl_bench.errors import shown as printed
from petl_bench.layout import Column, table_lines, terminal_width, wrapped
from petl_bench.run.search import trainings
from petl_bench.types import AugmentSpec, AverageSpec, LauncherSettings, RunSpec


def print_plan(prepared: Prepared, json: bool) -> None:
    """Print the numbers of runs by settings and state, what they have in common, and an estimate.

    Args:
        prepared: the sweep.
        json: print one object per run instead.
    """
    runs, states, store = prepared.runs, prepared.states, prepared.store
    todo = {i: runs[i] for i in prepared.todo}
    costs, launcher = Costs(), prepared.plan.launcher
    for row in usable_rows(store) if store.root.is_dir() else []:
        costs.add(row)
    if json:
        for i, spec in runs.items():
            known = None if i in prepared.unidentified else i
            held = {
                "run_id": known,
                **cell_of(spec),
                "seed": spec.seed,
                "state": states[i],
                "to_do": i in todo,
                "device": _devices(launcher),
                "train": asdict(spec.train),
                "trainings": len(trainings(spec)),
            }
            print_json(
                "plan/1", held | {"seconds": costs.seconds(kind_of(spec)), "bytes": costs.size(kind_of(spec))}
            )
        return
    width, specs = terminal_width(), [*runs.values()]
    say(*_counts(runs, todo, states, width))
    say_within(
        width,
        f"recipe: {_settings({'train': asdict(spec.train)} for spec in specs)}",
        f"input: {_all(_input(spec) for spec in specs)}",
        device_line(launcher, specs),
        *memory_lines(launcher, [*todo.values()]),
        f"{counted(len(runs), 'run')}, {len(todo)} to do{_work([*todo.values()])}",
        *_estimate([*todo.values()], costs),
    )
    if prepared.unchecked:
        say_within(
            width, f"not checked: {', '.join(prepared.unchecked)}; which of these runs are done is unknown"
        )


def _counts(
    runs: Mapping[str, RunSpec], todo: Collection[str], states: Mapping[str, str], width: int | None
) -> list[str]:
    """Return the table of the numbers of runs; within a width, what all runs share stands above it."""
    held = {i: cell_of(spec) for i, spec in runs.items()}
    same = {key for key in SHOWN_WHERE_VARIED if len({cell[key] for cell in held.values()}) == 1}
    shown = [key for key in next(iter(held.values())) if key not in same]
    numbers = ["runs", "done", "failed", *sorted({"damaged", "unknown"} & {*states.values()}), "to do"]
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for i, cell in held.items():
        counter = counts.setdefault(tuple(str(cell[key]) for key in shown), Counter())
        counter.update(["runs", states[i], *(["to do"] if i in todo else [])])
    rows = [
        [*map(printed, values), *(str(counter[k]) for k in numbers)] for values, counter in counts.items()
    ]
    columns = [
        Column(name, cells, left=number < len(shown))
        for number, (name, cells) in enumerate(zip([*shown, *numbers], zip(*rows, strict=True), strict=True))
    ]
    if width is None or len(rows) == 1:
        return table_lines(columns, len(shown), width)
    shared = [column for column in columns[1:] if len({*column.cells}) == 1]
    title = "each: " + ", ".join(f"{column.name} {column.cells[0]}" for column in shared)
    varied = [column for column in columns if column not in shared]
    above = wrapped(title, width) if shared else []
    return [*above, *table_lines(varied, sum(column.left for column in varied), width)]


def _estimate(todo: Collection[RunSpec], costs: Costs) -> list[str]:
    """Return lines on the time and bytes of the runs to do, as far as finished runs tell them."""
    kinds = [kind_of(spec) for spec in todo]
    seconds = [known for kind in kinds if (known := costs.seconds(kind)) is not None]
    sizes = [known for kind in kinds if (known := costs.size(kind)) is not None]
    if not todo:
        return []
    if not seconds:
        return ["no estimate of time and bytes: the store holds no finished run of this kind"]
    held = f", {sum(sizes):,} bytes of files" if sizes else ""
    lines = [f"estimate from finished runs: {duration(sum(seconds))} with one process{held}"]
    if unknown := len(kinds) - len(seconds):
        why = "the store holds no finished run of the backbone"
        lines.append(f"(time without {counted(unknown, 'run')}: {why})")
    if unknown := len(kinds) - len(sizes):
        why = "the store holds no finished run of this kind"
        lines.append(f"(bytes without {counted(unknown, 'run')}: {why})")
    return lines


def _work(todo: Collection[RunSpec]) -> str:
    """Return the number of trainings where it is not that of the runs, with the reasons."""
    count = sum(len(trainings(spec)) for spec in todo)
    if count == len(todo):
        return ""
    reasons = []
    if candidates := _all(str(len(spec.candidates)) for spec in todo if len(spec.candidates) > 1):
        reasons.append(f"protocol=sealed searches among {candidates} candidates")
    if made := sum(not trainings(spec) for spec in todo):
        reasons.append(f"{counted(made, 'run')} {'is' if made == 1 else 'are'} compressed without a training")
    return f": {counted(count, 'training')}, because {' and '.join(reasons)}"


def _input(spec: RunSpec) -> str:
    """Describe the input of a run's backbone."""
    backbone, size, chosen = spec.backbone, spec.backbone.image_size, spec.train.normalization
    own = backbone.normalization if backbone.label or backbone.normalization != "none" else chosen
    other = f" (the backbone's own is {own})" if own != chosen else ""
    return f"{size} x {size} pixels of backbone {backbone.display_name}, normalization {chosen}{other}"


def _devices(launcher: LauncherSettings) -> str:
    """Return the devices of the runs, as far as this machine knows them."""
    return launcher.device if launcher.elsewhere else ", ".join(devices_of(launcher))


UNSEEN = {"train.augment": asdict(AugmentSpec()), "train.average": asdict(AverageSpec())}
"""Settings of a recipe that are shown only where they are on."""
MANY = 6
"""Values of one setting that are shown."""


def _settings(parts: Any) -> str:
    """Return nested settings of several runs as overrides: `train.epochs=100 train.lr=0.001,0.005`."""
    values: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, value in flat(part, UNSEEN):
            values.setdefault(key, {})[str(value)] = None
    return " ".join(f"{key}={','.join(_few(held))}" for key, held in values.items())


def _all(texts: Any) -> str:
    """Return texts without repetition, the first ones of many."""
    return ", ".join(_few(dict.fromkeys(texts)))


def _few(values: Mapping[str, None]) -> list[str]:
    found = list(values)
    return found if len(found) <= MANY else [*found[:MANY], "..."]
