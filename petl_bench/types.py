"""What a run is, what it yields, and its identity. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from petl_bench.errors import UserError

PROTOCOL_VERSION = 1
"""Raised whenever the meaning of a number changes; part of every run's identity."""

SPLITS = ("train800", "val200", "test")
"""The splits of every task, in the order in which fingerprints take them."""

FLOAT_BITS = 32
"""The bit-width that stands for no quantization."""


@dataclass(frozen=True)
class TaskSpec:
    """Facts of one data set, as its manifest in data_manifests/ states them."""

    name: str
    suite: str
    group: str
    classes: int
    source: str
    """Name of the reader or generator in petl_bench.data."""
    splits: dict[str, int]
    """Number of images of train800, val200 and test."""
    fingerprint: str
    """SHA-256 over the images and labels of all splits; checked whenever the data are loaded."""
    about: dict[str, str] = field(default_factory=dict)
    """Title, licence, origin, version: documentation, not identity."""


@dataclass(frozen=True)
class BackboneSpec:
    """A frozen backbone: a timm architecture and where its weights come from."""

    name: str
    """timm architecture, for example vit_base_patch16_224."""
    weights: str
    """`pretrained`, `random`, a path, or `bundled:FILE` for a file of the package."""
    image_size: int
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of timm.create_model."""
    label: str = ""
    """The name in tables; `name` where empty."""

    @property
    def display_name(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter method by name with its own settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainSpec:
    """The training recipe; times in epochs."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_epochs: int
    warmup_lr: float
    min_lr: float
    schedule_lag: int
    """Epochs the schedule runs behind the training: 1 in the released code, which steps after each epoch."""
    drop_path: float
    normalization: str
    """`none` feeds pixels in [0, 1]; `imagenet` and `half` subtract a mean and divide by a deviation."""


@dataclass(frozen=True)
class ModelSpec:
    """What a reloaded model is built from: the part of a run that an adapter file must carry."""

    backbone: BackboneSpec
    adapter: AdapterSpec
    hidden: int
    scale: float
    quantizer: str
    bits: int
    head: str
    classes: int


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one run, and nothing else."""

    task: TaskSpec
    backbone: BackboneSpec
    adapter: AdapterSpec
    hidden: int
    scale: float
    quantizer: str
    bits: int
    head: str
    protocol: str
    precision: str
    seed: int
    train: TrainSpec

    def __post_init__(self) -> None:
        problems = [
            (self.bits in (*range(1, 9), FLOAT_BITS), "bits", self.bits, "1 to 8, or 32 for none"),
            (self.hidden >= 0, "hidden", self.hidden, "a number of hidden units, 0 or more"),
            (0 < self.scale < math.inf, "scale", self.scale, "a positive number"),
            (self.seed >= 0, "seed", self.seed, "0 or more"),
            (self.precision in ("fp32",), "precision", self.precision, "fp32"),
            (self.train.epochs >= 1, "train.epochs", self.train.epochs, "at least 1"),
            (self.train.batch_size >= 1, "train.batch_size", self.train.batch_size, "at least 1"),
            (0 < self.train.lr < math.inf, "train.lr", self.train.lr, "a positive number"),
            (0 <= self.train.drop_path < 1, "train.drop_path", self.train.drop_path, "in [0, 1)"),
            (
                self.train.normalization in NORMALIZATIONS,
                "train.normalization",
                self.train.normalization,
                "one of " + ", ".join(NORMALIZATIONS),
            ),
        ]
        for name in ("weight_decay", "warmup_epochs", "warmup_lr", "min_lr", "schedule_lag"):
            value = getattr(self.train, name)
            problems.append((0 <= value < math.inf, f"train.{name}", value, "0 or more"))
        for fine, key, value, right in problems:
            if not fine:
                raise UserError(f"{key}={value} is out of range: it must be {right}")

    @property
    def model(self) -> ModelSpec:
        return ModelSpec(
            self.backbone,
            self.adapter,
            self.hidden,
            self.scale,
            self.quantizer,
            self.bits,
            self.head,
            self.task.classes,
        )


NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


def spec_to_dict(spec: RunSpec) -> dict[str, Any]:
    """A run as a JSON object."""
    return asdict(spec)


def spec_from_dict(values: Mapping[str, Any]) -> RunSpec:
    """The inverse of `spec_to_dict`; raises TypeError or KeyError on foreign content."""
    rest = {f.name: values[f.name] for f in fields(RunSpec)}
    rest |= {
        "task": TaskSpec(**values["task"]),
        "backbone": BackboneSpec(**values["backbone"]),
        "adapter": AdapterSpec(**values["adapter"]),
        "train": TrainSpec(**values["train"]),
    }
    return RunSpec(**rest)


def run_id(spec: RunSpec, backbone_sha256: str) -> str:
    """Identity of a run: 12 hexadecimal digits.

    The hash covers the spec, the data fingerprint, the checksum of the backbone weights and the protocol
    version. The path of the weights and the documentation of the task are left out.
    """
    identity = spec_to_dict(spec)
    task, backbone = identity["task"], identity["backbone"]
    del task["about"], backbone["weights"], backbone["label"]
    identity |= {"backbone_sha256": backbone_sha256, "protocol_version": PROTOCOL_VERSION}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ResultRow:
    """One finished run. Every stored key is typed and explained here and nowhere else."""

    run_id: str
    suite: str
    task: str
    group: str
    backbone: str
    adapter: str
    hidden: int
    scale: float
    quantizer: str
    bits: int
    head: str
    protocol: str
    precision: str
    normalization: str
    seed: int
    epochs: int
    status: str  # "done"
    acc: float  # fraction of test images right, from the reloaded file
    acc_val: float | None  # the same on val200, where the protocol selects there
    acc_best_peek: float | None  # best over test evaluations, protocol peek only
    n_train: int
    n_test: int
    bytes_adapter: int
    bytes_head: int
    bytes_overhead: int
    bytes_file: int  # the three above summed = size on disk
    bits_per_weight: float | None  # 8 * bytes_adapter / adapter weights; None without an adapter
    params_trainable: int
    seconds_train: float
    seconds_eval: float
    images_per_second: float  # training images over seconds_train
    peak_memory_bytes: int
    device: str
    data_fingerprint: str
    backbone_sha256: str
    version: str
    git_revision: str
    git_dirty: bool
    torch_version: str
    started_at: str  # UTC, ISO 8601
    finished_at: str


def row_from_dict(values: Mapping[str, Any]) -> ResultRow:
    """A row from its JSON object; raises TypeError on missing or unknown keys."""
    return ResultRow(**values)


@dataclass(frozen=True)
class Runtime:
    """Where and how a run executes; nothing here may change its numbers."""

    store: str
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of one planned run: a row, or an error text."""

    run_id: str
    spec: RunSpec
    row: ResultRow | None = None
    error: str | None = None
