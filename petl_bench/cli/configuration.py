"""Output of `petl-bench sweep --cfg`: all settings of one run after they were resolved."""

from __future__ import annotations

import json as _json

from petl_bench.cli.common import flat, note, print_json, say
from petl_bench.cli.planning import Prepared
from petl_bench.types import spec_to_dict


def print_configuration(prepared: Prepared, json: bool) -> None:
    """Print the settings of the first run as YAML, or those of all runs as JSON lines.

    Which settings differ between the runs is told on stderr.
    """
    held = {i: spec_to_dict(spec) for i, spec in prepared.runs.items()}
    if json:
        for i, values in held.items():
            print_json("configuration/1", {"run_id": None if i in prepared.unidentified else i, **values})
        return
    import yaml

    first = _json.loads(_json.dumps(next(iter(held.values()))))  # plain lists and dictionaries
    say(*yaml.safe_dump(first, sort_keys=False, width=100).splitlines())
    texts: dict[str, set[str]] = {}
    for values in held.values():
        for key, value in flat(values):
            texts.setdefault(key, set()).add(repr(value))
    differing = [key for key, found in texts.items() if len(found) > 1]
    if len(held) > 1:
        note(
            f"these are the settings of the first of {len(held)} runs; they differ in {', '.join(differing)}"
        )
