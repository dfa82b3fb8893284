"""Figures: which a store has, their files, ranks, and that every text can be read."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Sheet
from PIL import Image

from petl_bench.config import plan
from petl_bench.data import manifests
from petl_bench.report.figures import Figure, figures
from petl_bench.report.labels import label
from petl_bench.report.pairs import by_width
from petl_bench.report.tables import Table, tabulate
from petl_bench.types import ResultRow
from tests.made import make_row

MARGIN = 0.01
HOSTILE = "_$x^2_{<&>}\\alpha$ äöü—Ж\x00\n"


def rows_for(*arguments: str) -> list[ResultRow]:
    """Made-up results of the runs that these arguments plan, any values that differ from row to row."""
    rows = []
    for spec in plan(["protocol=fixed", *arguments]).runs:
        noise = zlib.crc32(
            f"{spec.task.name} {spec.adapter.name} {spec.hidden} {spec.bits} {spec.seed}".encode()
        )
        bits, shots = (spec.bits if spec.hidden else 32), spec.task.shots or 1
        weights = spec.hidden * (200 if spec.adapter.name == "lora" else 100)
        size = weights * bits // 8 + 4 * spec.hidden
        acc = (
            0.3 + 0.05 * np.log2(1 + spec.hidden) + 0.02 * np.log2(shots) - 0.05 / bits + 0.02 * noise / 2**32
        )
        rows.append(
            make_row(
                spec,
                float(acc),
                bytes_adapter=size,
                bytes_adapter_raw=size,
                bytes_file=size + 3000 + noise % 10,
                bits_per_weight=8 * size / weights if weights else None,
            )
        )
    return rows


@dataclass(frozen=True)
class Ranks:
    labels: list[str]
    mean_ranks: list[float]
    friedman_p: float
    p_holm: pd.DataFrame


def ranking(labels: Sequence[str], ranks: Sequence[float], alike: float = 1.0) -> Ranks:
    """Return ranks of rows that do not differ where their mean ranks are at most `alike` apart."""
    apart = np.abs(np.subtract.outer(ranks, ranks))
    p_values = pd.DataFrame(np.where(apart <= alike, 0.5, 0.001), index=labels, columns=labels)
    return Ranks(list(labels), list(ranks), 0.002, p_values)


def ranked(table: Table) -> Ranks:
    """Rank the first 24 rows of a table in their order."""
    labels = [label(row, table) for row in table.rows[:24]]
    return ranking(labels, [1 + 0.9 * number for number in range(len(labels))], 2.0)


def drawn(rows: Iterable[ResultRow]) -> dict[str, Figure]:
    """All figures of a store, by name."""
    tables, _ = tabulate(rows, manifests())
    whole = [all(row.mean_of_groups.n for row in table.rows) for table in tables]
    ranks = {number: ranked(table) for number, table in enumerate(tables) if whole[number]}
    found = figures(tables, MARGIN, ranks, [by_width(table) for table in tables])
    assert len({figure.name for figure in found}) == len(found)
    return {figure.name: figure for figure in found}


POCKET = ["adapter=linear,adaptformer,lora", "bits=1,4,32", "hidden=16", "seed=0,1,2"]
GRID = ["adapter=linear,adaptformer,lora", "bits=1,2,4,8,32", "hidden=1,2,4,8,16,32,64", "seed=0"]
SHOTS = [
    "sweep=none", "task=glob(fgvc_*)", "shots=1,2,4,8,16", "adapter=adaptformer,lora", "bits=1,32", "scale=1",
    "seed=0,1",
]  # fmt: skip
VTAB = ["sweep=none", "task=glob(vtab_*)", "adapter=adaptformer,lora", "bits=1,32", "hidden=8,16", "scale=1"]


@cache
def store(name: str) -> list[ResultRow]:
    """Return the made-up results of a store."""
    return STORES[name]()


STORES: dict[str, Callable[[], list[ResultRow]]] = {
    "pocket": lambda: rows_for(*POCKET),
    "grid": lambda: rows_for(*GRID),
    "shots": lambda: rows_for(*SHOTS),
    "vtab": lambda: rows_for(*VTAB),
    "hostile": lambda: [
        replace(row, adapter=f"{HOSTILE} {row.adapter} of somebody else", backbone="WWWW_MMMM" * 8)
        for row in store("grid")
        if row.hidden in (0, 8, 16) and row.bits in (1, 32)
    ],
    "quantizers": lambda: [*store("pocket"), *quantizers("bits=1,2,4,32", "hidden=1,4,16", "seed=0")],
    "scales": lambda: [
        replace(row, scale=scale) for row in store("grid") if 0 < row.hidden < 9 for scale in (0.1, 1.0, 10.0)
    ],
    "two": lambda: [row for row in store("pocket") if row.adapter == "lora" and row.bits < 32],
}


def points(sheet: Sheet) -> dict[str, list[tuple[float, float]]]:
    """Series with bars: label -> points."""
    return {
        str(part.get_label()): [tuple(point) for point in part.lines[0].get_xydata()]
        for part in sheet.axes[0].containers
        if isinstance(part, ErrorbarContainer)
    }


# which figures, and their files


def test_which_figures_a_store_has() -> None:
    usual = ["accuracy-bytes", "accuracy-bits", "critical-difference", "task-differences"]
    assert list(drawn(store("pocket"))) == [f"pocket-fixed-{name}" for name in usual]
    assert list(drawn(store("grid"))) == [
        f"pocket-fixed-{name}"
        for name in [*usual[:2], "accuracy-hidden", *usual[2:], "task-differences-2", "task-differences-3"]
    ]
    few = list(drawn(store("shots")))
    tables = [f"fgvc-fixed-shots-{shots}-{name}" for shots in (1, 2, 4, 8, 16) for name in usual]
    assert few == [*tables, "fgvc-fixed-accuracy-shots"]
    assert set(drawn(store("two"))) == {
        "pocket-fixed-accuracy-bytes",
        *(f"pocket-fixed-{n}" for n in usual[1::2]),
    }


def test_strange_stores_have_fewer_figures_and_no_fault() -> None:
    assert figures([], MARGIN) == []
    lora = [row for row in store("pocket") if row.adapter == "lora"]
    assert drawn([row for row in lora if row.bits == 1]) == {}
    holed = [row for row in lora if row.bits == 1 or row.task == "digits"]
    assert drawn(holed) == {}  # one line has a mean of groups
    assert all(
        "1 of 5 tasks" in figure.title for figure in drawn([r for r in lora if r.task == "digits"]).values()
    )
    empty = [replace(row, bytes_file=0, bits_per_weight=None) for row in lora]
    assert list(drawn(empty)) == ["pocket-fixed-critical-difference", "pocket-fixed-task-differences"]
    same = [replace(row, acc=0.5, bytes_file=7, bits_per_weight=1.0) for row in lora]
    assert all(figure.png() for figure in drawn(same).values())


KINDS = {"pocket": ["bytes", "bits", "difference", "differences"], "grid": ["hidden"], "shots": ["shots"]}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.sampled(1)
def test_files_of_figures(name: str) -> None:
    """One figure of each kind."""
    first, again = drawn(store(name)), drawn(store(name))
    for kind in KINDS[name]:
        found = next(figure for figure in first.values() if figure.name.endswith(f"-{kind}"))
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found.name)
        assert found.title
        assert re.search(r"\d", found.description)
        text = found.svg()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "<text" not in text  # letters are paths: they look the same everywhere
        with mpl.rc_context({"font.size": 30, "figure.dpi": 50, "text.usetex": True}):
            assert again[found.name].svg() == text
        image = Image.open(io.BytesIO(found.png()))
        assert image.size == tuple(round(200 * inches) for inches in found.draw().get_size_inches())
        assert image.width == 1280
        grey = np.asarray(image.convert("L"))
        assert grey.min() < 50
        assert 0.5 < (grey == 255).mean() < 0.99


def test_no_figure_is_left_in_pyplot() -> None:
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    assert drawn(store("pocket"))["pocket-fixed-critical-difference"].svg()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_suites_whose_names_no_file_can_have_stay_apart() -> None:
    rows = [replace(row, suite=suite) for suite in ("own/$a", "own <a>", "Ж") for row in store("two")]
    names = list(drawn(rows))
    assert len(names) == 9
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


def test_names_alike_but_in_their_middle_stay_apart() -> None:
    twins = [replace(row, adapter="a" * 20 + letter + "b" * 20) for letter in "xy" for row in store("two")]
    (bits,) = [figure for name, figure in drawn(twins).items() if name.endswith("accuracy-bits")]
    assert len(points(bits.draw())) == 2
    assert all(len(name) < 40 for name in points(bits.draw()))


def quantizers(*arguments: str) -> list[ResultRow]:
    """Two that are far apart in accuracy, a rate weight in between, and 32 bits without any."""
    plain = rows_for("adapter=adaptformer", *arguments)
    changed = [
        {"quantizer": "lloyd_max", "acc": 0.9},
        {"quantizer": "minmax", "acc": 0.5},
        {"quantizer": "minmax", "acc": 0.7, "rate_weight": 0.5, "bits_per_weight": 0.75},
    ]
    few = [
        replace(row, **{**change, "acc": change["acc"] + (row.acc - 0.5) / 20})
        for change in changed for row in plain if row.bits < 32
    ]  # fmt: skip
    return [*few, *(replace(row, acc=0.95) for row in plain if row.bits == 32)]
