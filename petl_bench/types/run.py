"""A run and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from petl_bench.types.compression import NOT_COMPRESSED
from petl_bench.types.fields import check_keys
from petl_bench.types.method_facts import methods
from petl_bench.types.parts import AdapterSpec, BackboneSpec, ModelSpec, ProtocolSpec, TaskSpec
from petl_bench.types.recipe import AugmentSpec, AverageSpec, TrainSpec
from petl_bench.types.run_settings import RunSettings
from petl_bench.types.settings import check_ranges, completed_with_before, identity_of, require

PROTOCOL_VERSION = 4
"""Raised whenever settings come to mean another number; part of every run's identity.

2: the last block draws dropout for the tokens that are read only.
3: a branch draws its drop path before the dropout of an adapter beside it.
4: products that are measured from their initial value have it subtracted in float32, in every precision.
"""


@dataclass(frozen=True, kw_only=True)
class RunSpec(RunSettings):
    """All that decides the numbers of one run, and nothing else.

    `scale` is None where protocol `sealed` is to choose it; `precision` is `auto` in a plan only.
    """

    task: TaskSpec
    backbone: BackboneSpec
    adapter: AdapterSpec
    protocol: ProtocolSpec
    train: TrainSpec

    def __post_init__(self) -> None:
        check_ranges(self)
        epochs, rungs = self.train.epochs, self.protocol.rungs
        require(
            self.scale is not None or bool(self.protocol.scales),
            "scale",
            self.scale,
            "a positive number, or protocol=sealed with scales to choose from",
        )
        require(
            all(1 / 2 < share * epochs <= epochs for share in rungs)
            and len({round(share * epochs) for share in rungs}) == len(rungs),
            "protocol.rungs",
            list(rungs),
            f"shares of train.epochs={epochs}, each at least one epoch and at most 1, "
            "and of no two the same epochs",
        )
        require(
            not (self.compress == "compeft" and self.start),
            "start",
            self.start,
            "0 with compress=compeft: deviations are stored, and a file does not state another start",
        )
        require(
            not self.rate_weight or self.statistics_of == "matrix",
            "rate_weight",
            self.rate_weight,
            f"0 with statistics_of={self.statistics_of}: it takes matrices one by one",
        )
        require(
            not self.rate_weight or epochs > self.train.warmup_epochs,
            "rate_weight",
            self.rate_weight,
            f"0 where train.epochs={epochs} are over with the warm-up: it acts after that",
        )

    @property
    def candidates(self) -> list[RunSpec]:
        """Runs that protocol `sealed` chooses from, by ascending scale and then ascending learning rate.

        The list holds this run alone where nothing is left to choose.
        """
        scales: list[float | None] = [*sorted(self.protocol.scales)] or [self.scale]
        rates = sorted(self.protocol.lrs) or [self.train.lr]
        return [
            replace(self, scale=scale, train=replace(self.train, lr=rate))
            for scale in scales
            for rate in rates
        ]

    @property
    def searched(self) -> str:
        """Scales and learning rates that protocol `sealed` chooses from, as `scale 0.1 1; lr 0.001 0.01`.

        A scale that was given, and so was not searched, is named as `scale 1 given`. The text is empty for
        other protocols, and for methods with a constant scale where no learning rates are tried.
        """
        if self.protocol.name != "sealed":
            return ""
        grids = {"scale": self.protocol.scales, "lr": self.protocol.lrs}
        found = [" ".join([name, *(f"{v:g}" for v in values)]) for name, values in grids.items() if values]
        known = methods().get(self.adapter.name)
        if self.scale is not None and "scale" not in (known.unused if known else {}):
            found.insert(0, f"scale {self.scale:g} given")
        return "; ".join(found)

    def shortened(self, share: float) -> RunSpec:
        """Return a candidate for one rung of the search: the run in a share of the epochs."""
        protocol = replace(self.protocol, rungs=())
        return replace(self, protocol=protocol, train=self.train.shortened(share))

    @property
    def model(self) -> ModelSpec:
        """Model of a run whose scale is chosen."""
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
            self.float_bits,
            self.compress,
        )

    @property
    def compressed(self) -> bool:
        """True if this run is another run, at 32 bits, that is compressed after its training."""
        return self.compress != NOT_COMPRESSED


def spec_to_dict(spec: RunSpec) -> dict[str, Any]:
    """Return a run as a JSON object."""
    return asdict(spec)


def spec_from_dict(values: Mapping[str, Any]) -> RunSpec:
    """Return the run of a JSON object, the inverse of `spec_to_dict`.

    Raises:
        OtherVersionError: fields are only missing, or only unknown.
        TypeError, ValueError, UserError: other foreign content.
    """
    check_keys(values, RunSpec, "fields")
    train = completed_with_before(TrainSpec, values["train"])
    average = train["average"]
    parts = {
        "task": TaskSpec(**values["task"]),
        "backbone": BackboneSpec(**values["backbone"]),
        "adapter": AdapterSpec(**values["adapter"]),
        "protocol": ProtocolSpec(**values["protocol"]),
        "train": TrainSpec(
            **train
            | {
                "augment": AugmentSpec(**train["augment"]),
                "average": average if isinstance(average, AverageSpec) else AverageSpec(**average),
            }
        ),
    }
    return RunSpec(**completed_with_before(RunSpec, values) | parts)


def run_id(spec: RunSpec, backbone_sha256: str) -> str:
    """Return the identity of a run: 12 hexadecimal digits.

    The hash covers the spec, the data fingerprint, the checksum of the backbone weights and the protocol
    version. Fields that are declared as no identity are left out: paths of data and weights, and names and
    descriptions of the backbone.
    """
    assert spec.precision != "auto", "resolved by the device before a run is identified"
    return stored_id(spec_to_dict(spec), backbone_sha256)


_RECIPE = "train."
"""Prefix of settings of the recipe."""


def named(values: Mapping[str, Any], backbone_sha256: str, run_id: str) -> str:
    """Return `now` or `older` where this or an earlier version gives a spec the run_id, or nothing."""
    if stored_id(values, backbone_sha256) == run_id:
        return "now"
    versions = range(1, PROTOCOL_VERSION + 1)
    return "older" if any(stored_id(values, backbone_sha256, v) == run_id for v in versions) else ""


def stored_id(values: Mapping[str, Any], backbone_sha256: str, protocol_version: int | None = None) -> str:
    """Return the run_id of a spec as `spec_to_dict` gives it, with the fields of its time.

    Args:
        values: the spec.
        backbone_sha256: checksum of the backbone weights.
        protocol_version: None for the id that a sweep gives today; else that of petl-bench 0.1.0 and
            earlier under this version, when all methods had the whole recipe in their identity.

    Raises:
        KeyError, TypeError, ValueError: it is no spec of any time.
    """
    identity = identity_of(RunSpec, values)
    if identity["task"]["suite"] == "own":  # named after its folder
        del identity["task"]["name"]
    if protocol_version is None:
        protocol_version = PROTOCOL_VERSION
        known = methods().get(identity["adapter"]["name"])
        for name, value in (known.unused if known else {}).items():
            if name.startswith(_RECIPE):
                identity["train"][name.removeprefix(_RECIPE)] = value
    protocol = identity["protocol"]
    if protocol_version < 2 and isinstance(protocol, Mapping) and not protocol.get("rungs"):
        identity["protocol"] = {key: value for key, value in protocol.items() if key != "rungs"}
    identity |= {"backbone_sha256": backbone_sha256, "protocol_version": protocol_version}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
