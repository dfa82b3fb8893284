"""What a run yields, and where it executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_type_hints

from petl_bench.types.fields import check_keys
from petl_bench.types.run import RunSpec


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One finished run. Every stored key is typed and explained here and nowhere else.

    Columns with a default are younger than the first rows, which can still be read.
    """

    run_id: str
    suite: str
    task: str
    group: str
    backbone: str
    adapter: str
    hidden: int
    scale: float
    settings: str = ""  # the adapter's own, where they are not its defaults: "share=0"
    quantizer: str
    bits: int
    head: str
    protocol: str
    rungs: str = ""  # protocol sealed: shares of the epochs where it halves its search: "0.25 0.5"
    precision: str
    rate_weight: float = 0.0
    packing: str = "raw"  # as asked for: coded files have raw sections where that is smaller
    statistics: str = "exact"  # as asked for
    normalization: str
    seed: int
    epochs: int
    lr: float | None = None  # as chosen, where protocol sealed searches it; tuned, where conf/tuned has one
    recipe: str = ""  # short hash of the recipe (but a rate given beforehand) and of what else is chosen
    shots: int = 0  # training images a class of a few-shot set, else 0
    split_seed: int = 0  # which draw of the training images
    data_override: str = ""  # facts of the manifest that the user overrode; empty for the real benchmark
    status: str  # "done"
    acc: float  # fraction of test images right, from the reloaded file
    acc_val: float | None  # the winner's on val in its last trial, after training without val
    acc_best_peek: float | None  # best over test evaluations, protocol peek only
    n_train: int
    n_test: int
    bytes_adapter: int
    bytes_adapter_raw: int | None = None  # with whole codes and float32 statistics
    bytes_head: int
    bytes_overhead: int
    bytes_file: int  # the three above summed = size on disk
    bits_per_weight: float | None  # 8 * bytes_adapter / adapter weights; None without an adapter
    params_trainable: int
    seconds_search: float = 0.0  # protocol sealed: training and scoring all candidates
    seconds_train: float
    seconds_eval: float
    images_per_second: float  # through the backbone in training, over seconds_train
    peak_memory_bytes: int
    device: str
    data_fingerprint: str
    backbone_sha256: str
    version: str
    git_revision: str
    git_dirty: bool
    torch_version: str
    pillow_version: str = ""  # decides the last bits of resized images
    started_at: str  # UTC, ISO 8601
    finished_at: str


MOST = 2.0**63
"""No number of a row is that large; Parquet's whole numbers end there."""


def row_from_dict(values: Mapping[str, Any]) -> ResultRow:
    """A row from its JSON object.

    Raises:
        OtherVersionError: keys are only missing, or only unknown.
        TypeError: both, or a value is of another type than its column.
        ValueError: a number is not finite or below 0, or an accuracy is no fraction.
    """
    check_keys(values, ResultRow, "columns")
    row = ResultRow(**values)
    for name, value in values.items():
        if not isinstance(value, COLUMNS[name]) or (type(value) is bool) != (bool in COLUMNS[name]):
            kinds = " or ".join(kind.__name__ for kind in COLUMNS[name])
            raise TypeError(f"{name} is {value!r}, it must be {kinds}")
        if isinstance(value, int | float) and not 0 <= value < MOST:
            raise ValueError(f"{name} is {value}, it must be a number from 0 to {MOST:g}")
    for name in ("acc", "acc_val", "acc_best_peek"):
        if not 0 <= (values.get(name) or 0) <= 1:
            raise ValueError(f"{name} is {values[name]}, it must be a fraction from 0 to 1")
    return row


def spec_columns(spec: RunSpec) -> dict[str, object]:
    """Return the columns of a row that its spec determines, whatever the defaults of its adapter."""
    return {
        "suite": spec.task.suite,
        "task": spec.task.name,
        "group": spec.task.group,
        "backbone": spec.backbone.display_name,
        "adapter": spec.adapter.name,
        "hidden": spec.hidden,
        "scale": spec.scale,
        "quantizer": spec.quantizer,
        "bits": spec.bits,
        "head": spec.head,
        "protocol": spec.protocol.name,
        "rungs": spec.protocol.rungs_text,
        "precision": spec.precision,
        "rate_weight": spec.rate_weight,
        "packing": spec.packing,
        "statistics": spec.statistics,
        "normalization": spec.train.normalization,
        "seed": spec.seed,
        "epochs": spec.train.epochs,
        "lr": spec.train.lr,
        "shots": spec.task.shots,
        "split_seed": spec.task.split_seed,
        "data_override": spec.task.override,
        "data_fingerprint": spec.task.fingerprint,
    }


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types a column's values may have; a whole number is a float too."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return (*kinds, int) if float in kinds else kinds


COLUMNS = {name: _kinds(hint) for name, hint in get_type_hints(ResultRow).items()}
"""Types of a row's columns, by name."""


@dataclass(frozen=True)
class Cache:
    """Directory of what is derived from data files, and the bytes it may take."""

    directory: str = ""
    """Empty: `petl-bench` in the user's cache folder."""
    limit: int = 50_000_000_000


@dataclass(frozen=True)
class Runtime:
    """Where and how a run executes; nothing here may change its numbers."""

    store: str
    device: str = "cpu"
    threads: int = 1
    loaders: int = 0  # processes that augment images; 0: the run's own
    compile: str = "none"  # mode of torch.compile; may change last bits, as another device may
    checkpoint: int = 0  # epochs between checkpoints of a training; 0: none
    heartbeat: float = 10.0  # seconds between signs of life of a run's claim
    cache: Cache = field(default_factory=Cache)


@dataclass(frozen=True)
class Job:
    """One planned run on its way to a process."""

    run_id: str
    spec: RunSpec
    """Its task settled."""
    seen: str = ""
    """What the store held of the run when it was planned (Store.stamp): anything newer is another's work."""
    command: str = ""
    """What repeats this run alone."""


@dataclass(frozen=True)
class Outcome:
    """What became of one planned run: a row, or an error text and its cause."""

    run_id: str
    spec: RunSpec
    row: ResultRow | None = None
    error: str | None = None
    cause: str = ""
    """Of an error: one of CAUSES."""
    elsewhere: bool = False
    """Whether another sweep did it meanwhile."""


CAUSES = {
    "error": "an exception",
    "diverged": "a loss or a model whose values are not finite",
    "memory": "out of memory",
    "device": "the device failed or is lost",
    "killed": "its process was killed; the same command runs it again",
    "store": "the store cannot be written",
    "busy": "another process is at work on it",
}
"""Why a run has no row."""
NO_FAULT = ("killed", "device")
"""Causes that say nothing against the run: the same command runs it again."""
