"""Readable names of runs, for listings and logs; a run is identified by its run_id alone."""

from __future__ import annotations

import re

from petl_bench.types.method_facts import changed_text
from petl_bench.types.run import RunSpec
from petl_bench.types.run_settings import RunSettings
from petl_bench.types.settings import declarations


def readable_name(spec: RunSpec) -> str:
    """Return a name such as `digits/lora-h8-b1-s0`.

    It holds the task, the method, its hidden size, bits and seed, and each other setting of the run that
    differs from its default. Two runs may have the same name, for example if their recipes differ.
    """
    parts = [spec.adapter.name]
    if spec.hidden:
        parts += [f"h{spec.hidden}", f"b{spec.bits}"]
    if spec.task.shots:
        parts += [f"{spec.task.shots}shot", f"draw{spec.task.split_seed}"]
    for name, known in declarations(RunSettings).items():
        if known.column in ("table", "row") and name not in ("hidden", "bits", "quantizer"):
            value = getattr(spec, name)
            parts += [f"{name}={value}"] if value != known.default else []
    parts += changed_text(spec.adapter).split()
    return f"{spec.task.name}/{'-'.join([*parts, f's{spec.seed}'])}"


LONGEST = 120
"""Most characters of a folder that is named after a run."""


def readable_folder(spec: RunSpec) -> str:
    """Return the readable name of a run as the relative path of two folders.

    Characters that are no letters, digits or one of `=.,+-` are replaced, so that every file system takes it.
    """
    parts = readable_name(spec).split("/", 1)
    return "/".join(re.sub(r"[^\w=.,+-]|^\.", "_", part)[:LONGEST] for part in parts)
