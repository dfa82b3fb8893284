"""Contents of HTML pages for tests: the report of a store, and one with hostile names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from petl_bench.config import plan
from petl_bench.data import manifests
from petl_bench.report.grid import Grid, text_column
from petl_bench.report.page import PageContent
from petl_bench.report.sections import section
from petl_bench.report.statistics import Comparison
from petl_bench.report.tables import Table, tabulate
from petl_bench.store import ADAPTER, SPEC, Store
from petl_bench.types import ResultRow
from tests.made import make_row

ATTACK = (
    "</script><img src=x onerror=window.hit=1><script>window.hit=1</script>"
    "<!--<script>\"' onfocus=window.hit=1 {{7*7}} javascript:window.hit=1"
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" width="640" height="400">'
    "<style>text{fill:red}</style><text y='20' style='font-size:20px'>é</text></svg>"
)


def figure(title: str, description: str) -> Any:
    return SimpleNamespace(title=title, description=description, svg=lambda: SVG)


def comparison(table: Table) -> Comparison:
    """Return a made-up comparison of the first and the last row of a table."""
    return Comparison(
        row=table.rows[0], against=table.rows[-1], tasks=5, difference=-0.0141, low=-0.02, high=-0.003,
        std=0.02, effect=-0.8, wins=1, ties=0, losses=4, p=0.012, p_holm=0.04, p_equivalence=0.6,
        p_equivalence_holm=1.0, margin=0.01, verdict="worse", repeated=None, mixed=None,
    )  # fmt: skip


def grid(title: str, **columns: list[str]) -> Grid:
    return Grid(title, [text_column(name, texts) for name, texts in columns.items()])


def content_of(results: Sequence[ResultRow], sentence: str = "", notes: Sequence[str] = ()) -> PageContent:
    """Return the page of finished runs, with a made-up comparison and notes where there is a sentence."""
    tables, warnings = tabulate(results, manifests())
    sections = [section(table, tables, [comparison(table)] if sentence else []) for table in tables]
    if sentence:
        sections = [dataclasses.replace(s, sentences=[sentence], notes=[*s.notes, *notes]) for s in sections]
    return PageContent("A report", sections, warnings, results, lambda _: ("", ""))


def report(folder: Path) -> PageContent:
    """Return the page of 104 runs in a store beside it; one of lora at 32 bits is missing."""
    store = Store(folder / "store #1")
    runs = plan(["adapter=linear,adaptformer,lora", "bits=1,4,32", "seed=0,1,2"]).runs
    assert len(runs) == 105
    rows = []
    for number, spec in enumerate(runs):
        if (spec.adapter.name, spec.bits, spec.seed, spec.task.name) != ("lora", 32, 2, "surfaces"):
            adapter = bytes(number * 37 % 4001)
            rows.append(make_row(spec, (number * 37 % 101) / 101, adapter))
            store.put(spec, rows[-1], adapter)

    def links(run_id: str) -> tuple[str, str]:
        spec, adapter = (quote(os.path.relpath(store.directory(run_id) / n, folder)) for n in (SPEC, ADAPTER))
        return spec, adapter

    return dataclasses.replace(
        content_of(rows, "lora is worse"),
        warnings=["a warning"],
        links=links,
        figures=[figure("Drawing", "What it shows")],
        published=[grid("Cited", method=["Theirs", "Others"], mean=["70.0", "-"])],
        footnotes=["a: source"],
    )


def hostile() -> PageContent:
    """Return a page with the attack in every place that can hold a name."""
    (spec,) = plan(["sweep=none", "task=digits", "adapter=lora", "scale=1"]).runs
    names = ["suite", "task", "group", "backbone", "adapter", "settings", "head", "device", "version"]
    names += ["git_revision", "data_fingerprint", "backbone_sha256", "recipe", "torch_version", "run_id"]
    row = make_row(spec, 0.5)
    results = [dataclasses.replace(row, **dict.fromkeys(names, ATTACK + mark)) for mark in ("", "2")]
    return dataclasses.replace(
        content_of(results, ATTACK, [ATTACK]),
        title=ATTACK,
        warnings=[ATTACK],
        links=lambda run_id: (f"store/{quote(run_id, safe='')}/{SPEC}", ""),
        figures=[figure(ATTACK, ATTACK)],
        published=[grid(ATTACK, **{ATTACK: [ATTACK], ATTACK + "2": [ATTACK]})],
        footnotes=[ATTACK],
    )
