"""Readable names of runs, for listings and logs; a run is identified by its run_id alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Settings that are named where runs of one readable name differ in them, if these tell them apart."""


def names_in_sweep(specs: Mapping[str, RunSpec]) -> dict[str, str]:
    """Return the names of `distinct_names` without settings that tell no two runs of a sweep apart.

    A setting is left out if all runs share it whose methods have runs with this setting. A single run has its
    whole name.

    Args:
        specs: the runs of the sweep by run_id.
    """
    changed = {run_id: _changed(spec) for run_id, spec in specs.items()}
    runs, with_setting = Counter(spec.adapter.name for spec in specs.values()), Counter[tuple[str, str]]()
    for run_id, spec in specs.items():
        with_setting.update((spec.adapter.name, text) for text in changed[run_id])
    named = {text for (method, text), count in with_setting.items() if count < runs[method]}
    values = Counter(text.partition("=")[0] for text in {text for _, text in with_setting})
    named |= {text for _, text in with_setting if values[text.partition("=")[0]] > 1 or len(specs) == 1}
    names = {
        run_id: _name(spec, [text for text in changed[run_id] if text in named])
        for run_id, spec in specs.items()
    }
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
        if len(run_ids) > 1:
            own = _differences([specs[run_id] for run_id in run_ids])
            short = [texts[:MOST_DIFFERENCES] for texts in own]
            if len({*map(tuple, short)}) == len({*map(tuple, own)}):
                own = [
                    [*texts[:MOST_DIFFERENCES], *(["..."] if len(texts) > MOST_DIFFERENCES else [])]
                    for texts in own
                ]
            for run_id, texts in zip(run_ids, own, strict=True):
                names[run_id] = " ".join([name, *texts])
    return names


def _differences(specs: Sequence[RunSpec]) -> list[list[str]]:
    """Return the settings of each run, as `key=value`, that are not those of most of the runs."""
    held = [{key: _in_words(value) for key, value in _flat(asdict(spec))} for spec in specs]
    usual = {}
    for key in dict.fromkeys(key for values in held for key in values):
        ((value, count),) = Counter(values.get(key, "null") for values in held).most_common(1)
        usual[key] = value if 2 * count > len(held) else None
    return [
        [f"{key}={values.get(key, 'null')}" for key in usual if values.get(key, "null") != usual[key]]
        for values in held
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings by their keys, joined with dots; `protocol` instead of `protocol.name`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield (prefix + key).removesuffix(".name"), value


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_in_words, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "null" if value is None else str(value)


LONGEST = 120
"""Most characters of a folder that is named after a run."""


def readable_folder(spec: RunSpec) -> str:
    """Return the readable name of a run as the relative path of two folders.

    Characters that are no letters, digits or one of `=.,+-` are replaced, so that every file system takes it.
    """
    parts = readable_name(spec).split("/", 1)
    return "/".join(re.sub(r"[^\w=.,+-]|^\.", "_", part)[:LONGEST] for part in parts)
