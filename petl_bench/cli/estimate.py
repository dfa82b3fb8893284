"""Estimates of the time and bytes of runs from finished runs of the same kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from petl_bench.types import ResultRow, RunSettings, RunSpec, changed_text, declarations, spec_columns

_SHOWN = ("hidden", "bits", "head")
"""Settings of a run that plans always show; besides them its task, adapter, protocol and shots."""
_OTHERS = tuple(
    name
    for name, known in declarations(RunSettings).items()
    if name not in _SHOWN and known.column in ("table", "row")
)
SHOWN_WHERE_VARIED = ("settings", "rungs", *_OTHERS)
"""Columns that a plan shows only where its runs differ in them."""
_KIND = ("backbone", "adapter", *_SHOWN, "protocol", *SHOWN_WHERE_VARIED)
"""Columns of rows; runs that agree in them take about the same time and bytes."""
Columns = tuple[object, ...]
Kind = tuple[Columns, int]


def cell_of(spec: RunSpec) -> dict[str, object]:
    """Return the settings of a run that plans show, as the columns of its row."""
    columns = spec_columns(spec) | {"settings": changed_text(spec.adapter)}
    names = ("task", "adapter", *_SHOWN, "protocol", "shots", *SHOWN_WHERE_VARIED)
    return {name: columns[name] for name in names}


def kind_of(spec: RunSpec) -> Kind:
    """Return the kind of a run: the columns that decide its costs, and its epochs."""
    known = {"backbone": spec.backbone.display_name, **cell_of(spec)}
    return tuple(known[name] for name in _KIND), spec.train.epochs


@dataclass
class Costs:
    """Costs of finished runs. Runs of one kind have the same bytes, and seconds proportional to their epochs.

    Attributes:
        seconds_per_epoch: observed seconds per epoch of training, by kind.
        sizes: observed bytes of adapter files, by kind.
    """

    seconds_per_epoch: dict[Columns, list[float]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[Columns, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: ResultRow) -> None:
        """Add the costs of a finished run."""
        columns = tuple(getattr(row, name) for name in _KIND)
        seconds = row.seconds_search + row.seconds_train
        self.seconds_per_epoch[columns].append(seconds / row.epochs)
        self.sizes[columns].append(row.bytes_file)

    def of(self, kind: Kind) -> tuple[float, int] | None:
        """Return the seconds of one process and the bytes of the file; None if no such run is known."""
        columns, epochs = kind
        if columns not in self.sizes:
            return None
        return median(self.seconds_per_epoch[columns]) * epochs, int(median(self.sizes[columns]))

    def seconds(self, runs: Mapping[Kind, int]) -> float:
        """Return the seconds of some runs together.

        A run of an unknown kind counts as the mean of the others, or as one second if no kind is known.

        Args:
            runs: number of runs by kind.
        """
        found = {kind: self.of(kind) for kind in runs}
        known = {kind: cost[0] for kind, cost in found.items() if cost is not None}
        count = sum(runs[kind] for kind in known)
        total = sum(seconds * runs[kind] for kind, seconds in known.items())
        return total + (sum(runs.values()) - count) * (total / count if count else 1.0)


def remaining(
    costs: Costs, done: Mapping[Kind, int], left: Mapping[Kind, int], elapsed: float
) -> float | None:
    """Return the seconds until the runs `left` are done at the speed so far; None before the first is done.

    Args:
        done: numbers of runs by kind that were done in `elapsed` seconds, by any number of processes.
        left: numbers of the other runs by kind.
    """
    work = costs.seconds(done)
    return elapsed * costs.seconds(left) / work if work else None
