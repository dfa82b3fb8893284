"""Imports of all that executes runs, without the work of the garbage collector.

Imports of torch and timm make many objects and hardly any garbage: with the collector paused they take a
quarter less time. Afterwards these objects are frozen: no collection visits them again, and forked processes
share their memory.
"""

from __future__ import annotations

import gc

gc.disable()
try:
    from petl_bench.launch.attempt import attempt
    from petl_bench.launch.preflight import preflight
finally:
    gc.freeze()
    gc.enable()

__all__ = ["attempt", "preflight"]
