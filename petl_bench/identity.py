"""The run_id of a spec, without importing torch where the weights are a file."""

from __future__ import annotations

from petl_bench import weights
from petl_bench.types import BackboneSpec, RunSpec, run_id


def backbone_sha256(spec: BackboneSpec) -> str:
    """SHA-256 of the weights: of their file, or of the state that timm provides."""
    path = weights.find(spec.weights)
    if path is not None:
        return weights.checksum(path)
    from petl_bench.backbones import state_checksum

    return state_checksum(spec)


def identify(spec: RunSpec) -> str:
    """The run's identity; see petl_bench.types.run_id."""
    return run_id(spec, backbone_sha256(spec.backbone))
