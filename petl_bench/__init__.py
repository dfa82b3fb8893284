"""petl-bench: quantized adapters on frozen vision backbones, measured under one protocol.

    load            model of an adapter file
    SharedBackbone  one backbone in memory for many adapter files
    Model           what `load` returns
    sweep           `petl-bench sweep`
    rows            rows of finished runs as a DataFrame
    make_report     `petl-bench report`
    use_plugins     `--config-dir`
    UserError       error of invalid input

They are imported when they are first used, since torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petl_bench.errors import UserError
    from petl_bench.notebook import make_report, rows, sweep, use_plugins
    from petl_bench.use import Model, SharedBackbone, load

__version__ = "0.1.0"
__all__ = [
    "Model",
    "SharedBackbone",
    "UserError",
    "__version__",
    "load",
    "make_report",
    "rows",
    "sweep",
    "use_plugins",
]

_PUBLIC = {"load": "use", "Model": "use", "SharedBackbone": "use", "UserError": "errors"} | dict.fromkeys(
    ("sweep", "rows", "make_report", "use_plugins"), "notebook"
)
"""Modules of the public names."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'petl_bench' has no attribute {name!r}")
    return getattr(import_module(f"petl_bench.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
