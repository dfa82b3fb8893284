"""Trained state <-> bytes."""

from petl_bench.packing.bits import pack, packed_size, unpack
from petl_bench.packing.coded import Matrix, expectations
from petl_bench.packing.file import MAX_OVERHEAD, AdapterFile, VerifiedFile, dump, load, verify
from petl_bench.packing.metadata import (
    FROM_FILE,
    FileMetadata,
    describe,
    interpret,
    short_checksum,
    stated_precision,
    stated_settings,
)
from petl_bench.packing.tensors import STATISTIC_SIZES, Entry, StoredTensor
from petl_bench.packing.truncate_ranks import cut

__all__ = [
    "FROM_FILE",
    "MAX_OVERHEAD",
    "STATISTIC_SIZES",
    "AdapterFile",
    "Entry",
    "FileMetadata",
    "Matrix",
    "StoredTensor",
    "VerifiedFile",
    "cut",
    "describe",
    "dump",
    "expectations",
    "interpret",
    "load",
    "pack",
    "packed_size",
    "short_checksum",
    "stated_precision",
    "stated_settings",
    "unpack",
    "verify",
]
