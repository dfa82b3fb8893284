"""Adapter files: conversion between trained models and bytes."""

from petl_bench.packing.bits import pack, packed_size, unpack
from petl_bench.packing.coded import expected_log_odds
from petl_bench.packing.file import MAX_OVERHEAD, AdapterFile, VerifiedFile, dump, load, verify
from petl_bench.packing.metadata import (
    FileMetadata,
    bytes_of_names,
    interpret,
    stated_class_names,
    stated_classes,
    stated_facts,
    stated_plugins,
    stated_precision,
    stated_resize,
    stated_settings,
)
from petl_bench.packing.pieces import CodeMatrix
from petl_bench.packing.predictions import Predictions, compared, unpack_predictions
from petl_bench.packing.section import role_of
from petl_bench.packing.stated import FROM_FILE, describe, names_entry, short_checksum
from petl_bench.packing.statistics_in_bits import MOST_BITS as MOST_MANTISSA_BITS
from petl_bench.packing.tensors import STATISTIC_SIZES, Entry, StoredTensor, round_statistic
from petl_bench.packing.truncate_ranks import truncate

__all__ = [
    "FROM_FILE",
    "MAX_OVERHEAD",
    "MOST_MANTISSA_BITS",
    "STATISTIC_SIZES",
    "AdapterFile",
    "CodeMatrix",
    "Entry",
    "FileMetadata",
    "Predictions",
    "StoredTensor",
    "VerifiedFile",
    "bytes_of_names",
    "compared",
    "describe",
    "dump",
    "expected_log_odds",
    "interpret",
    "load",
    "names_entry",
    "pack",
    "packed_size",
    "role_of",
    "round_statistic",
    "short_checksum",
    "stated_class_names",
    "stated_classes",
    "stated_facts",
    "stated_plugins",
    "stated_precision",
    "stated_resize",
    "stated_settings",
    "truncate",
    "unpack",
    "unpack_predictions",
    "verify",
]
