"""A run and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from petl_bench.errors import UserError
from petl_bench.types.fields import check_keys
from petl_bench.types.parts import (
    ACTIVATIONS,
    AVERAGE_WEIGHTS,
    FLOAT_BITS,
    NORMALIZATIONS,
    PACKINGS,
    PRECISIONS,
    STATISTICS,
    AdapterSpec,
    AugmentSpec,
    AverageSpec,
    BackboneSpec,
    ModelSpec,
    ProtocolSpec,
    TaskSpec,
    TrainSpec,
)

PROTOCOL_VERSION = 4
"""Raised whenever settings come to mean another number; part of every run's identity.

2: the last block draws dropout for the tokens that are read only.
3: a branch draws its drop path before the dropout of an adapter beside it.
4: products that count from their start on are subtracted from it in float32, in every precision.
"""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one run, and nothing else."""

    task: TaskSpec
    backbone: BackboneSpec
    adapter: AdapterSpec
    hidden: int
    scale: float | None
    """None where protocol `sealed` is to choose it."""
    quantizer: str
    bits: int
    head: str
    protocol: ProtocolSpec
    precision: str
    """Of the frozen backbone; `auto` in a plan only."""
    seed: int
    train: TrainSpec
    rate_weight: float = 0.0
    """Weight of the code length in training (petl_bench.train.rate_regularizer); 0: none."""
    packing: str = "coded"
    """`coded` where that makes the file smaller, or `raw`."""
    statistics: str = "exact"
    """Shifts and spreads as `exact` float32 numbers, or `short` where predictions stay the same."""

    def __post_init__(self) -> None:
        problems = [
            (self.bits in (*range(1, 9), FLOAT_BITS), "bits", self.bits, "1 to 8, or 32 for none"),
            (self.hidden >= 0, "hidden", self.hidden, "a number of hidden units, 0 or more"),
            (self.scale is None or 0 < self.scale < math.inf, "scale", self.scale, "a positive number"),
            (
                all(0 < value < math.inf for value in [*self.protocol.scales, *self.protocol.lrs]),
                "protocol.scales or protocol.lrs",
                [*self.protocol.scales, *self.protocol.lrs],
                "positive numbers",
            ),
            (
                self.scale is not None or bool(self.protocol.scales),
                "scale",
                self.scale,
                "a positive number, or protocol=sealed with scales to choose from",
            ),
            (
                all(1 / 2 < share * self.train.epochs <= self.train.epochs for share in self.protocol.rungs)
                and len({round(share * self.train.epochs) for share in self.protocol.rungs})
                == len(self.protocol.rungs),
                "protocol.rungs",
                self.protocol.rungs,
                f"shares of train.epochs={self.train.epochs}, each at least one epoch and at most 1, "
                "and of no two the same epochs",
            ),
            (self.seed >= 0, "seed", self.seed, "0 or more"),
            (self.precision in PRECISIONS, "precision", self.precision, "one of " + ", ".join(PRECISIONS)),
            (0 <= self.rate_weight < math.inf, "rate_weight", self.rate_weight, "0 or more"),
            (
                not self.rate_weight or self.train.epochs > self.train.warmup_epochs,
                "rate_weight",
                self.rate_weight,
                f"0 where train.epochs={self.train.epochs} are over with the warm-up: it acts after that",
            ),
            (self.packing in PACKINGS, "packing", self.packing, " or ".join(PACKINGS)),
            (self.statistics in STATISTICS, "statistics", self.statistics, " or ".join(STATISTICS)),
            (self.train.epochs >= 1, "train.epochs", self.train.epochs, "at least 1"),
            (self.train.batch_size >= 1, "train.batch_size", self.train.batch_size, "at least 1"),
            (0 < self.train.lr < math.inf, "train.lr", self.train.lr, "a positive number"),
            (0 <= self.train.drop_path < 1, "train.drop_path", self.train.drop_path, "in [0, 1)"),
            (
                self.protocol.name != "peek" or self.protocol.every >= 1,
                "protocol.every",
                self.protocol.every,
                "at least 1",
            ),
            (
                not (self.train.augment.mixup or self.train.augment.cutmix) or not self.train.batch_size % 2,
                "train.batch_size",
                self.train.batch_size,
                "even, because mixup and cutmix pair images",
            ),
            (
                self.train.normalization in NORMALIZATIONS,
                "train.normalization",
                self.train.normalization,
                "one of " + ", ".join(NORMALIZATIONS),
            ),
            (
                self.train.activations in ACTIVATIONS,
                "train.activations",
                self.train.activations,
                "one of " + ", ".join(ACTIVATIONS),
            ),
        ]
        average = self.train.average
        for fine, name, right in (
            (average.checkpoints == 0 or average.checkpoints >= 2, "checkpoints", "0, or 2 or more"),
            (average.every >= 1, "every", "at least 1"),
            (
                (average.checkpoints - 1) * average.every < self.train.epochs,
                "checkpoints",
                f"fewer: train.epochs={self.train.epochs} have not as many, {average.every} epochs apart",
            ),
            (average.by in AVERAGE_WEIGHTS, "by", " or ".join(AVERAGE_WEIGHTS)),
            (0 <= average.power <= 20, "power", "0 to 20"),
        ):
            problems.append((fine, f"train.average.{name}", getattr(average, name), right))
        for name in ("weight_decay", "warmup_epochs", "warmup_lr", "min_lr", "schedule_lag"):
            value = getattr(self.train, name)
            problems.append((0 <= value < math.inf, f"train.{name}", value, "0 or more"))
        for name in ("color_jitter", "mixup", "cutmix"):
            value = getattr(self.train.augment, name)
            problems.append((0 <= value < math.inf, f"train.augment.{name}", value, "0 or more"))
        for name in ("erasing", "smoothing"):
            value = getattr(self.train.augment, name)
            problems.append((0 <= value <= 1, f"train.augment.{name}", value, "in [0, 1]"))
        for fine, key, value, right in problems:
            if not fine:
                raise UserError(f"{key}={value} is out of range: it must be {right}")

    @property
    def candidates(self) -> list[RunSpec]:
        """What protocol `sealed` chooses from, the smaller scale and then the smaller rate first.

        One run, this one, where nothing is left to choose.
        """
        scales: list[float | None] = [*sorted(self.protocol.scales)] or [self.scale]
        rates = sorted(self.protocol.lrs) or [self.train.lr]
        return [
            replace(self, scale=scale, train=replace(self.train, lr=rate))
            for scale in scales
            for rate in rates
        ]

    def shortened(self, share: float) -> RunSpec:
        """A candidate for one rung of the search: the run in a share of the epochs."""
        protocol = replace(self.protocol, rungs=[])
        return replace(self, protocol=protocol, train=self.train.shortened(share))

    @property
    def model(self) -> ModelSpec:
        """The model of a run whose scale is chosen."""
        assert self.scale is not None
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


def spec_to_dict(spec: RunSpec) -> dict[str, Any]:
    """A run as a JSON object."""
    return asdict(spec)


def spec_from_dict(values: Mapping[str, Any]) -> RunSpec:
    """The inverse of `spec_to_dict`. Fields with a default are younger than the first specs: files were raw.

    Raises:
        OtherVersionError: fields are only missing, or only unknown.
        TypeError, ValueError, UserError: other foreign content.
    """
    check_keys(values, RunSpec, "fields")
    values = {"packing": "raw", **values}
    rest = {f.name: values[f.name] for f in fields(RunSpec) if f.name in values or f.default is MISSING}
    rest |= {
        "task": TaskSpec(**values["task"]),
        "backbone": BackboneSpec(**values["backbone"]),
        "adapter": AdapterSpec(**values["adapter"]),
        "protocol": ProtocolSpec(**values["protocol"]),
        "train": TrainSpec(**values["train"] | _parts_of(values["train"])),
    }
    return RunSpec(**rest)


def _parts_of(train: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "augment": AugmentSpec(**train["augment"]),
        "average": AverageSpec(**train.get("average", {})),
    }


def said_of(train: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the options that are off: there are runs from before they were options."""
    return {key: value for key, value in train.items() if key not in _OFF or value != _OFF[key]}


_OFF: dict[str, object] = {"average": asdict(AverageSpec()), "activations": "full"}


def run_id(spec: RunSpec, backbone_sha256: str) -> str:
    """Identity of a run: 12 hexadecimal digits.

    The hash covers the spec, the data fingerprint, the checksum of the backbone weights and the protocol
    version. Paths of data and weights are left out, and what only names or describes the backbone.
    """
    assert spec.precision != "auto", "settled by the device before a run is identified"
    return stored_id(spec_to_dict(spec), backbone_sha256)


def stored_id(
    values: Mapping[str, Any], backbone_sha256: str, protocol_version: int = PROTOCOL_VERSION
) -> str:
    """The run_id of a spec as `spec_to_dict` gives it, with the fields and the protocol version of its time.

    Raises:
        KeyError, TypeError, ValueError: it is no spec of any time.
    """
    task, backbone = dict(values["task"]), dict(values["backbone"])
    task.pop("place", None)
    if task["suite"] == "own":  # named after its folder
        del task["name"]
    for key in ("weights", "label", "normalization", "published"):
        backbone.pop(key, None)
    identity = {**values, "task": task, "backbone": backbone, "train": said_of(dict(values["train"]))}
    protocol = values["protocol"]
    if protocol_version < 2 and isinstance(protocol, Mapping) and not protocol.get("rungs"):
        identity["protocol"] = {key: value for key, value in protocol.items() if key != "rungs"}
    identity |= {"backbone_sha256": backbone_sha256, "protocol_version": protocol_version}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
