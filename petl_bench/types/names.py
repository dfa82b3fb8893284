"""Readable names of runs, for listings and logs; a run is identified by its run_id alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from petl_bench.types.method_facts import changed_text
from petl_bench.types.run import RunSpec
from petl_bench.types.run_settings import RunSettings
from petl_bench.types.settings import declarations


def readable_name(spec: RunSpec) -> str:
    """Return a name such as `digits/lora-h8-b1-s0`.

    It holds the task, the method, its hidden size, bits and seed, and each other setting of the run that
    differs from its default. Two runs may have the same name, for example if their recipes differ; see
    `distinct_names`.
    """
    return _name(spec, _changed(spec))


def _name(spec: RunSpec, settings: Iterable[str]) -> str:
    parts = [spec.adapter.name]
    if spec.hidden:
        parts += [f"h{spec.hidden}", f"b{spec.bits}"]
    if spec.task.shots:
        parts += [f"{spec.task.shots}shot", f"draw{spec.task.split_seed}"]
    return f"{spec.task.name}/{'-'.join([*parts, *settings, f's{spec.seed}'])}"


def _changed(spec: RunSpec) -> list[str]:
    """Return the settings of a run, as `name=value`, that differ from their defaults."""
    parts = []
    for name, known in declarations(RunSettings).items():
        if known.column in ("table", "row") and name not in ("hidden", "bits", "quantizer"):
            value = getattr(spec, name)
            parts += [f"{name}={value}"] if value != known.default else []
    return parts + changed_text(spec.adapter).split()


MOST_DIFFERENCES = 3
"""Settings that are named where runs of one readable name differ in them."""


def names_in_sweep(specs: Mapping[str, RunSpec]) -> dict[str, str]:
    """Return the names of `distinct_names` without the settings that all of several runs of a method share.

    Args:
        specs: the runs of the sweep by run_id.
    """
    runs, changed = Counter(spec.adapter.name for spec in specs.values()), Counter[tuple[str, str]]()
    for spec in specs.values():
        changed.update((spec.adapter.name, setting) for setting in _changed(spec))
    names = {}
    for run_id, spec in specs.items():
        method = spec.adapter.name
        own = [text for text in _changed(spec) if runs[method] == 1 or changed[method, text] < runs[method]]
        names[run_id] = _name(spec, own)
    return _told_apart(names, specs)


def distinct_names(specs: Mapping[str, RunSpec]) -> dict[str, str]:
    """Return the readable names of runs; where several have one name, with the settings that tell them apart.

    For example, `digits/lora-h8-b1-s0 protocol=sealed`. A setting is named where its value is not that of
    most of these runs; of many such settings the first ones are named.

    Args:
        specs: the runs by run_id.
    """
    return _told_apart({run_id: readable_name(spec) for run_id, spec in specs.items()}, specs)


def _told_apart(names: dict[str, str], specs: Mapping[str, RunSpec]) -> dict[str, str]:
    alike: dict[str, list[str]] = {}
    for run_id, name in names.items():
        alike.setdefault(name, []).append(run_id)
    for name, run_ids in alike.items():
        if len(run_ids) == 1:
            continue
        settings = {run_id: dict(_flat(asdict(specs[run_id]))) for run_id in run_ids}
        usual = {}
        for key in dict.fromkeys(key for held in settings.values() for key in held):
            ((value, count),) = Counter(_in_words(held.get(key)) for held in settings.values()).most_common(1)
            usual[key] = value if 2 * count > len(settings) else None
        for run_id, held in settings.items():
            texts = {key: _in_words(held.get(key)) for key in usual}
            own = [f"{key}={text}" for key, text in texts.items() if text != usual[key]]
            more = ["..."] if len(own) > MOST_DIFFERENCES else []
            names[run_id] = " ".join([name, *own[:MOST_DIFFERENCES], *more])
    return names


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings by their keys as in overrides; `protocol` instead of `protocol.name`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield (prefix + key).removesuffix(".name"), value


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_in_words, value))}]"
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


LONGEST = 120
"""Most characters of a folder that is named after a run."""


def readable_folder(spec: RunSpec) -> str:
    """Return the readable name of a run as the relative path of two folders.

    Characters that are no letters, digits or one of `=.,+-` are replaced, so that every file system takes it.
    """
    parts = readable_name(spec).split("/", 1)
    return "/".join(re.sub(r"[^\w=.,+-]|^\.", "_", part)[:LONGEST] for part in parts)
