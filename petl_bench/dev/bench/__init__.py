"""Benchmarks of this implementation against a plain reference, which work like the released code.

Both run alternately in one process.
"""

from petl_bench.dev.bench import commands, end_to_end, growth, steps, switching, tensors
from petl_bench.dev.bench.case import CASES, Case, Measurement, Setting, measured

__all__ = [
    "CASES",
    "Case",
    "Measurement",
    "Setting",
    "commands",
    "end_to_end",
    "growth",
    "measured",
    "steps",
    "switching",
    "tensors",
]
