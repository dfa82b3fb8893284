"""Adapter methods, one file each. Importing this package imports every file, which registers its methods."""

import importlib
import pkgutil

from petl_bench.adapters.base import ADAPTERS, Attached, Shape, attach, declare, merge

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ADAPTERS", "Attached", "Shape", "attach", "declare", "merge"]
