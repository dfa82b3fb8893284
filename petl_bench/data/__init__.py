"""Tasks as verified splits, and the files they come from; generators and layouts register themselves."""

import importlib
import pkgutil

from petl_bench.data.base import GENERATORS, Ragged, Split, digest, generate
from petl_bench.data.settle import expected_files, load, manifest_of, settle

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "GENERATORS",
    "Ragged",
    "Split",
    "digest",
    "expected_files",
    "generate",
    "load",
    "manifest_of",
    "settle",
]
