"""This implementation against the plain path of the released code, in one process, by turns."""

from petl_bench.dev.bench import commands, growth, steps, tensors, whole
from petl_bench.dev.bench.case import CASES, Case, Measurement, Setting, measured

__all__ = [
    "CASES",
    "Case",
    "Measurement",
    "Setting",
    "commands",
    "growth",
    "measured",
    "steps",
    "tensors",
    "whole",
]
