"""Runs in the HTML page: the embedded data of the table of runs, and the provenance of the runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from petl_bench.errors import counted
from petl_bench.report.tables import BLANK
from petl_bench.store import ADAPTER, SPEC
from petl_bench.types import ResultRow

SHOWN: dict[str, Callable[[ResultRow], str]] = {
    "task": lambda row: row.task,
    "backbone": lambda row: row.backbone,
    "adapter": lambda row: row.adapter,
    "hidden": lambda row: _of_adapter(row, row.hidden),
    "bits": lambda row: _of_adapter(row, row.bits),
    "head": lambda row: row.head,
    "scale": lambda row: _of_adapter(row, row.scale),
    "seed": lambda row: str(row.seed),
    "protocol": lambda row: row.protocol,
    "accuracy %": lambda row: f"{100 * row.acc:.1f}",
    "file bytes": lambda row: f"{row.bytes_file:,}",
    "bits per weight": lambda row: BLANK if row.bits_per_weight is None else f"{row.bits_per_weight:.2f}",
    "seconds": lambda row: f"{row.seconds_search + row.seconds_train + row.seconds_eval:,.1f}",
    "run_id": lambda row: row.run_id,
}
"""Columns of the table of runs, with the text of a run in each; the details of a run show all others."""
WORDS = frozenset({"task", "backbone", "adapter", "head", "protocol", "run_id"})
"""Columns of SHOWN that hold words, not numbers."""
RUN_ID = "{}"
"""Placeholder for the run_id in links, so that most runs share one link; no quoted URL contains it."""


def embedded(
    rows: Sequence[ResultRow],
    links: Callable[[str], tuple[str, str]],
    store: str,
    variants: Mapping[str, int],
) -> str:
    """Return all runs as JSON for a script element, column by column.

    Args:
        rows: the finished runs.
        links: function from a run_id to relative, quoted URLs of its spec and its adapter file.
        store: folder of the store, quoted for a shell; empty: unknown.
        variants: number of variants of each run's cell.

    Returns:
        An object with the texts of the table of runs, all values, the links and the store.

    Raises:
        ValueError: a link is not relative.
    """
    urls = [tuple(_linked(url, row.run_id) for url in links(row.run_id)) for row in rows]
    data = {
        "count": len(rows),
        "store": store,
        "shown": {name: _coded([text(row) for row in rows]) for name, text in SHOWN.items()},
        "all": {held.name: _coded([getattr(row, held.name) for row in rows]) for held in fields(ResultRow)}
        | {"variants": _coded([variants.get(row.run_id, 1) for row in rows])},
        "links": {
            name: _coded([pair[number] for pair in urls]) for number, name in enumerate(("spec", "adapter"))
        },
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # so that no text can end the script element or begin a comment
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _coded(values: list[Any]) -> dict[str, list[Any]]:
    """Encode a column of the runs compactly.

    `v` has the value of each run; or its distinct values, where `i` has the number of the value of each
    run. A single value belongs to all runs.
    """
    distinct = {value: number for number, value in enumerate(dict.fromkeys(values))}
    if len(distinct) == 1:
        return {"v": values[:1]}
    if 2 * len(distinct) > len(values):
        return {"v": values}
    return {"v": list(distinct), "i": [distinct[value] for value in values]}


def provenance(rows: Sequence[ResultRow]) -> dict[str, list[str]]:
    """Return the distinct values of everything that says with what, and when, the runs were made."""
    facts: dict[str, set[str]] = {
        "petl-bench": {row.version for row in rows},
        "git revision": {
            row.git_revision + (" with uncommitted changes" if row.git_dirty else "") for row in rows
        },
        "torch": {row.torch_version for row in rows},
        "timm": {row.timm_version for row in rows},
        "Pillow": {row.pillow_version for row in rows},
        "device": {row.device for row in rows},
        "kernels": {row.kernels for row in rows},
        "recipe": {f"{row.recipe_name} {row.recipe}".strip() for row in rows},
        "scale from": {row.scale_from for row in rows},
        "learning rate from": {row.lr_from for row in rows},
        "backbone weights, SHA-256": {f"{row.backbone}: {row.backbone_sha256}" for row in rows},
        "data fingerprint": {f"{_data(row)}: {row.data_fingerprint}" for row in rows},
        "first started": {min((row.started_at for row in rows), default="")},
        "last finished": {max((row.finished_at for row in rows), default="")},
    }
    return {name: held for name, values in facts.items() if (held := sorted(values - {""}))}


def links(store: Path, base: Path) -> Callable[[str], tuple[str, str]]:
    """Return the function from a run_id to the URLs of its spec and its adapter file.

    Args:
        store: folder of the store.
        base: folder of the page, which the URLs are relative to.
    """
    root = quote(os.path.relpath(store, base))  # a browser follows the path as written, not its links

    def urls(run_id: str) -> tuple[str, str]:
        there = [name if (store / run_id / name).is_file() else "" for name in (SPEC, ADAPTER)]
        spec, adapter = (f"{root}/{quote(run_id, safe='')}/{name}" if name else "" for name in there)
        return spec, adapter

    return urls


def _linked(url: str, run_id: str) -> str:
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        raise ValueError(f"link {url!r} of run {run_id!r} is not relative")
    return url.replace(run_id, RUN_ID)


def _of_adapter(row: ResultRow, value: float) -> str:
    """Return a setting of the adapter as text, BLANK where the method has no adapter, as in the tables."""
    return f"{value:g}" if row.hidden else BLANK


def _data(row: ResultRow) -> str:
    draw = f", {counted(row.shots, 'shot')}, draw {row.split_seed}" if row.shots or row.split_seed else ""
    return row.task + draw
