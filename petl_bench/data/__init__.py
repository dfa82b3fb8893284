"""Tasks as verified splits; every file of this folder registers its own sources."""

import importlib
import pkgutil

from petl_bench.data.base import SOURCES, Split, digest, load, read

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["SOURCES", "Split", "digest", "load", "read"]
