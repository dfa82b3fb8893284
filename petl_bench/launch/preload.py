"""Imports of all that executes runs, without the work of the garbage collector.

Imports of torch and timm make many objects and hardly any garbage: with the collector paused they take
less time. The objects are not frozen: at the end of a process the collector must find them, or triton
reports leaks.
"""

from __future__ import annotations

import gc

gc.disable()
try:
    from petl_bench.launch import memory
    from petl_bench.launch.attempt import attempt
    from petl_bench.launch.preflight import preflight
finally:
    gc.enable()

__all__ = ["attempt", "memory", "preflight"]
