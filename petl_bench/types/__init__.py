"""What a run is, what it yields, and its identity. Standard library only."""

from petl_bench.types.fields import OtherVersionError
from petl_bench.types.manifest import ListFacts, Manifest
from petl_bench.types.parts import (
    FLOAT_BITS,
    NORMALIZATIONS,
    PACKINGS,
    RESIZES,
    SPLITS,
    STATISTICS,
    TRAINVAL,
    AdapterSpec,
    AugmentSpec,
    BackboneSpec,
    ModelSpec,
    ProtocolSpec,
    TaskSpec,
    TrainSpec,
)
from petl_bench.types.row import CAUSES, COLUMNS, Cache, Job, Outcome, ResultRow, Runtime, row_from_dict
from petl_bench.types.run import PROTOCOL_VERSION, RunSpec, run_id, spec_from_dict, spec_to_dict, stored_id

__all__ = [
    "CAUSES",
    "COLUMNS",
    "FLOAT_BITS",
    "NORMALIZATIONS",
    "PACKINGS",
    "PROTOCOL_VERSION",
    "RESIZES",
    "SPLITS",
    "STATISTICS",
    "TRAINVAL",
    "AdapterSpec",
    "AugmentSpec",
    "BackboneSpec",
    "Cache",
    "Job",
    "ListFacts",
    "Manifest",
    "ModelSpec",
    "OtherVersionError",
    "Outcome",
    "ProtocolSpec",
    "ResultRow",
    "RunSpec",
    "Runtime",
    "TaskSpec",
    "TrainSpec",
    "row_from_dict",
    "run_id",
    "spec_from_dict",
    "spec_to_dict",
    "stored_id",
]
