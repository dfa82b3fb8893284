"""Estimates of the time and bytes of runs from finished runs of the same or of the nearest kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import mean, median

from petl_bench.run.search import trainings
from petl_bench.types import ResultRow, RunSettings, RunSpec, changed_text, declarations, spec_columns

_SHOWN = ("hidden", "bits", "head")
"""Settings of a run that plans always show; besides them its task, adapter, protocol and shots."""
_OTHERS = tuple(
    name
    for name, known in declarations(RunSettings).items()
    if name not in _SHOWN and known.column in ("table", "row")
)
SHOWN_WHERE_VARIED = ("backbone", "image_size", "settings", "rungs", *_OTHERS)
"""Columns that a plan shows only where its runs differ in them."""
_KIND = ("adapter", *_SHOWN, "protocol", *SHOWN_WHERE_VARIED)
"""Columns of rows; runs that agree in them have adapter files of about the same bytes."""
Columns = tuple[object, ...]


@dataclass(frozen=True)
class Kind:
    """Kind of a run: everything that its costs follow from.

    Attributes:
        columns: its values of the columns _KIND.
        backbone: name of the backbone and size of its input.
        adapter: name of the method.
        epochs: epochs of its last training.
        trained: training images times epochs, of all its trainings together.
        tested: test images.
    """

    columns: Columns
    backbone: tuple[str, int | None]
    adapter: str
    epochs: int
    trained: float
    tested: int


_NEAREST: tuple[Callable[[Kind], Columns], ...] = (
    lambda kind: (kind.columns, kind.epochs),
    lambda kind: (kind.columns,),
    lambda kind: (kind.adapter, kind.backbone, kind.epochs),
    lambda kind: (kind.adapter, kind.backbone),
    lambda kind: (kind.backbone, kind.epochs),
    lambda kind: (kind.backbone,),
)
"""Properties that a finished run shares with a planned one whose time it tells, the nearest kind first."""


def cell_of(spec: RunSpec) -> dict[str, object]:
    """Return the settings of a run that plans show, as the columns of its row."""
    columns = spec_columns(spec)
    columns |= {"settings": changed_text(spec.adapter), "image_size": spec.backbone.image_size}
    names = ("task", "adapter", *_SHOWN, "protocol", "shots", *SHOWN_WHERE_VARIED)
    return {name: columns[name] for name in names}


def kind_of(spec: RunSpec) -> Kind:
    """Return the kind of a planned run whose task is resolved."""
    cell = cell_of(spec)
    return Kind(
        tuple(cell[name] for name in _KIND),
        (spec.backbone.display_name, spec.backbone.image_size),
        spec.adapter.name,
        spec.train.epochs,
        spec.task.training_images * sum(trainings(spec)),
        spec.task.splits.get("test", 0),
    )


@dataclass(frozen=True)
class _Observed:
    """Costs of a finished run: seconds for one image in training and in evaluation, and bytes of the file."""

    training: float
    evaluation: float
    size: int


@dataclass
class Costs:
    """Costs of finished runs.

    Attributes:
        alike: finished runs by what they may have in common with others (a function of _NEAREST and its
            value), and these by kind.
    """

    alike: dict[tuple[int, Columns], dict[Kind, list[_Observed]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, row: ResultRow) -> None:
        """Add the costs of a finished run."""
        columns = tuple(getattr(row, name) for name in _KIND)
        kind = Kind(columns, (row.backbone, row.image_size), row.adapter, row.epochs, 0, 0)
        each = row.seconds_train / max(1, row.epochs * row.n_train)
        observed = _Observed(each, row.seconds_eval / max(1, row.n_test), row.bytes_file)
        for number, common in enumerate(_NEAREST):
            self.alike[number, common(kind)][kind].append(observed)

    def seconds(self, kind: Kind) -> float | None:
        """Return the seconds of a run with one process, or None if no run of its backbone is known.

        They are the mean over the nearest known kinds, of each the median of its runs.
        """
        for number, common in enumerate(_NEAREST):
            if alike := self._of(number, common(kind)):
                training = mean(median(run.training for run in runs) for runs in alike)
                evaluation = mean(median(run.evaluation for run in runs) for runs in alike)
                return training * kind.trained + evaluation * kind.tested
        return None

    def size(self, kind: Kind) -> int | None:
        """Return the bytes of a run's adapter file, or None if no run of its kind is known."""
        sizes = [run.size for runs in self._of(1, (kind.columns,)) for run in runs]
        return int(median(sizes)) if sizes else None

    def _of(self, number: int, common: Columns) -> list[list[_Observed]]:
        """Return the finished runs that have this in common, kind by kind."""
        return list(self.alike.get((number, common), {}).values())

    def together(self, runs: Mapping[Kind, int]) -> float | None:
        """Return the seconds of some runs together, or None if no run of any of their backbones is known.

        A run of an unknown backbone counts as the mean of the others.

        Args:
            runs: number of runs by kind.
        """
        known = {kind: seconds for kind in runs if (seconds := self.seconds(kind)) is not None}
        count = sum(runs[kind] for kind in known)
        if not count:
            return None if sum(runs.values()) else 0.0
        return sum(seconds * runs[kind] for kind, seconds in known.items()) / count * sum(runs.values())


def remaining(
    costs: Costs, done: Mapping[Kind, int], left: Mapping[Kind, int], elapsed: float
) -> float | None:
    """Return the seconds until the runs `left` are done at the speed so far; None where nothing tells them.

    Args:
        done: numbers of runs by kind that were done in `elapsed` seconds, by any number of processes.
        left: numbers of the other runs by kind.
    """
    work, rest = costs.together(done), costs.together(left)
    return elapsed * rest / work if work and rest is not None else None
