"""`report --against published`: cited numbers are those of their sources and stand apart from ours."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from petl_bench.config import group_config, options, plan
from petl_bench.data import manifests
from petl_bench.report.published import PublishedRow, published, read
from petl_bench.store import Store
from petl_bench.types import NORMALIZATIONS
from tests.conftest import error_of, quickly
from tests.made import make_row

ROWS = published(manifests())
VTAB = {name: manifest for name, manifest in manifests().items() if manifest.suite == "vtab"}
TITLE = "Published (cited, not run here)"


def row_of(method: str, **facts: object) -> PublishedRow:
    wanted = {"method": method, **facts}
    (row,) = [row for row in ROWS if all(getattr(row, key) == value for key, value in wanted.items())]
    return row


def vtab_store(root: Path, backbone: str = "vit_b16_in21k") -> Path:
    """Fill a store with made-up results of AdaptFormer on all of VTAB-1K."""
    axes = ["sweep=none", "task=glob(vtab_*)", "adapter=adaptformer", "hidden=32", f"backbone={backbone}"]
    for number, spec in enumerate(plan(axes).runs):
        Store(root).put(spec, make_row(spec, number / 20), b"adapter")
    return root


def report(store: Path, form: str = "text", *arguments: str) -> Any:
    done = quickly("report", "--store", store, "--format", form, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if form == "json" else done.stdout


def grids_of(markdown: str) -> dict[str, list[list[str]]]:
    """Return the header and the rows of every table by its title."""
    found = {}
    for title, grid in re.findall(r"\*\*(.+)\*\*\n\n((?:\|.*\n)+)", markdown):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in grid.splitlines()]
        found[title] = [lines[0], *lines[2:]]
    return found


# the data


def test_every_row_has_a_value_for_all_tasks_or_one_average() -> None:
    assert len(VTAB) == 19
    assert len(ROWS) == 19  # ten methods by task, nine by their average
    for row in ROWS:
        assert set(row.accuracy) == set(VTAB)
        assert list(row.groups) == ["natural", "specialized", "structured"]
        held = {value is not None for value in (*row.accuracy.values(), *row.groups.values())}
        assert held == {row.mean_of_tasks is not None}
    assert sum(row.mean_of_tasks is not None for row in ROWS) == 10
    assert len({(row.method, row.source, row.hidden, row.bits, row.head) for row in ROWS}) == 19


def test_every_row_says_where_it_is_from() -> None:
    weights = {name for name in options("backbone") if group_config("backbone", name).get("published")}
    assert {row.backbone for row in ROWS} == weights | {"unknown"}
    assert {row.normalization for row in ROWS} <= {*NORMALIZATIONS, "unknown"}
    for row in ROWS:
        theirs = row.source.startswith("JieShibo/PETL-ViT/")
        assert row.selection == ("best on test" if theirs else "not stated")


# README of synbol/Parameter-Efficient-Transfer-Learning-Benchmark, its column Mean (of the 19 tasks).
MEANS_OF_19 = {
    "Full": 65.57,
    "Linear": 52.94,
    "VPT-Deep": 69.43,
    "AdaptFormer": 72.32,
    "LoRA": 72.25,
    "NOAH": 73.25,
    "FacT": 73.23,
    "SSF": 73.10,
    "RepAdapter": 73.84,
}


@pytest.mark.parametrize("method", MEANS_OF_19)
def test_the_mean_of_19_is_that_of_the_source(method: str) -> None:
    row = row_of(method, source="synbol/Parameter-Efficient-Transfer-Learning-Benchmark")
    assert row.mean_of_tasks == pytest.approx(MEANS_OF_19[method] / 100, abs=6e-5)


def test_group_means_are_those_by_hand() -> None:
    # Sums of the published values by task: 563.9 over 7, 339.5 over 4 and 470.6 over 8 tasks.
    row = row_of("AdaptFormer")
    by_hand = {"natural": 0.805571, "specialized": 0.84875, "structured": 0.58825}
    assert row.groups == pytest.approx(by_hand, abs=1e-6)
    assert row.mean_of_groups == pytest.approx(0.747524, abs=1e-6)  # (80.5571 + 84.875 + 58.825) / 3
    # README of PETL-ViT/convpass: 81.69, 85.31 and 62.68, and 76.56 in all, from values of two decimals.
    row = row_of("Convpass")
    theirs = {"natural": 0.8169, "specialized": 0.8531, "structured": 0.6268}
    assert row.groups == pytest.approx(theirs, abs=5e-4)
    assert row.mean_of_groups == pytest.approx(0.7656, abs=5e-4)


@pytest.mark.parametrize(
    ("method", "hidden", "payload"),
    # Bytes of the adapter alone at 1 bit: 24 matrices of 768 h bits with 8 bytes of statistics each, twice as
    # many for LoRA. The binary head of C classes has 96 C + 8 bytes.
    [
        ("Bi-AdaptFormer", 32, 73_920),
        ("Bi-AdaptFormer", 1, 2_496),
        ("Bi-LoRA", 32, 147_840),
        ("Bi-LoRA", 1, 4_992),
    ],
)
def test_sizes_are_kib_averaged_over_the_group_means(method: str, hidden: int, payload: int) -> None:
    def size(unit: int, *groups: tuple[str, ...]) -> float:
        heads = [mean(96 * m.classes + 8 for m in VTAB.values() if m.group in group) for group in groups]
        return (payload + mean(heads)) / unit

    by_group = (("natural",), ("specialized",), ("structured",))
    cited = row_of(method, hidden=hidden, head="binary").kib
    assert cited == pytest.approx(size(1024, *by_group), abs=0.1)
    assert cited != pytest.approx(size(1000, *by_group), abs=0.1)
    assert cited != pytest.approx(size(1024, ("natural", "specialized", "structured")), abs=0.1)


FACTS = "source: a/b, backbone: vit_b16_in21k, normalization: unknown, selection: not stated"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{method: Mine}", "Mine: needs either values or an average"),
        ("{method: Mine, values: [1, 2], average: 1.5}", "Mine: needs either"),
        ("{method: Mine, values: [1, 2, 3]}", "3 values for 2 tasks"),
        ("{method: Mine, values: [1, 100.1]}", "from 0 to 100"),
        ("{method: Mine, values: [-1, 2]}", "from 0 to 100"),
        ("{method: Mine, values: [1, many]}", "from 0 to 100"),
        ("{method: Mine, average: 101}", "from 0 to 100"),
        ("{method: Mine, average: 50, hiden: 8}", "hiden"),
    ],
)
def test_rows_that_cannot_be_are_refused(row: str, message: str) -> None:
    content = "tasks: [vtab_dtd, vtab_kitti]\nsources: [{%s, rows: [%s]}]"
    (fine,) = read(content % (FACTS, "{method: Mine, values: [40, 60]}"), manifests())
    assert fine.mean_of_groups == 0.5
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        read(content % (FACTS, row), manifests())


# the report


def test_published_rows_stand_apart_after_ours(tmp_path: Path) -> None:
    store = vtab_store(tmp_path)
    for form in ("text", "markdown"):
        ours, both = report(store, form), report(store, form, "--against", "published")
        assert TITLE not in ours
        ours = ours.partition("training curves")[0].strip()
        assert both.startswith(ours)
        assert both.removeprefix(ours).strip(" *\n").startswith(TITLE)
        for row in ROWS:
            assert row.source in both
        assert "selection best on test" in both
        assert "selection not stated" in both
        assert "pixel normalization unknown" in both


def test_columns_of_published_rows_are_ours(tmp_path: Path) -> None:
    markdown = report(vtab_store(tmp_path), "markdown", "--against", "published")
    averages, ours, _, cited, cited_averages, *_ = grids_of(markdown).values()
    assert cited[0][1:-1] == ours[0][3:]  # after method; after adapter, hidden and bits
    assert len(cited[0][1:-1]) == 19
    means = ["mean of groups", "natural", "specialized", "structured", "mean of 19 tasks"]
    assert averages[0][3:8] == cited_averages[0][4:9] == means
    by_method = {line[0]: dict(zip(cited[0], line, strict=True)) for line in cited[1:]}
    assert by_method["AdaptFormer"]["cifar"] == "70.8"  # as published
    assert by_method["RepAdapter"]["smallnorb_azi"] == "38.6"
    lines = [dict(zip(cited_averages[0], line, strict=True)) for line in cited_averages[1:]]
    adaptformer, lora = [line for line in lines if line["method"] in ("AdaptFormer", "LoRA")]
    assert [adaptformer[name] for name in means] == ["74.8", "80.6", "84.9", "58.8", "72.3"]
    assert lora["specialized"] == "84.6"  # (84.9 + 95.3 + 84.4 + 73.6) / 4 = 84.55, half up
    smallest = next(line for line in lines if line["KiB per task"] == "6.8")
    assert list(smallest.values())[:4] == ["Bi-AdaptFormer", "1", "1", "binary"]
    assert [smallest[name] for name in means] == ["73.8", "-", "-", "-", "-"]


def test_json_and_csv_keep_published_rows_out_of_ours(tmp_path: Path) -> None:
    store = vtab_store(tmp_path)
    ours, both = report(store, "json"), report(store, "json", "--against", "published")
    cited = both.pop("published")
    assert {key: value for key, value in both.items() if key != "differences"} == ours
    assert [line["method"] for line in cited] == [row.method for row in ROWS]
    assert cited[0]["accuracy"]["vtab_cifar"] == 0.689  # a fraction, as in our rows
    assert list(cited[0]["accuracy"]) == [cell["task"] for cell in ours["rows"]]
    assert cited[-1]["accuracy"]["vtab_cifar"] is None
    assert (cited[-1]["mean_of_groups"], cited[-1]["kib"]) == (0.746, 9.2)
    done = quickly("report", "--store", store, "--format", "csv", "--against", "published")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 19
    assert done.stdout == report(store, "csv")
    assert "csv holds only rows of the store" in done.stderr


def test_a_caution_where_published_rows_do_not_compare(finished_store: Path, tmp_path: Path) -> None:
    same, other = vtab_store(tmp_path / "same"), vtab_store(tmp_path / "other", "vit_b16_augreg_in21k")
    for store, cautions in [
        (same, []),
        (
            other,
            [
                "published rows whose weights are known were made with vit_b16_in21k, not with "
                "vit_b16_augreg_in21k"
            ],
        ),
        (finished_store, ["the published rows are results on VTAB-1K, but this report has none on VTAB-1K"]),
    ]:
        ours, both = report(store, "json"), report(store, "json", "--against", "published")
        assert both["warnings"] == ours["warnings"] + cautions
        done = quickly("report", "--store", store, "--against", "published")
        assert done.stderr.splitlines() == [f"warning: {warning}" for warning in both["warnings"]]
        assert TITLE in done.stdout


def test_only_published_is_known_to_against(finished_store: Path) -> None:
    message = error_of(quickly("report", "--store", finished_store, "--against", "publishd"))
    assert message == "--against publishd: did you mean 'published'?"
    assert "known: published" in error_of(quickly("report", "--store", finished_store, "--against", "x"))


# the difference to ours


def lora_store(root: Path) -> Path:
    """Fill a store with made-up results of LoRA at 32 bits and AdaptFormer at 1 bit on all of VTAB-1K."""
    for adapter, bits in (("lora", 32), ("adaptformer", 1)):
        axes = ["sweep=none", "task=glob(vtab_*)", f"adapter={adapter}", "hidden=32", f"bits={bits}"]
        for number, spec in enumerate(plan([*axes, "backbone=vit_b16_in21k"]).runs):
            Store(root).put(spec, make_row(spec, number / 20), b"adapter")
    return root


def test_the_difference_is_ours_minus_theirs_of_the_same_method_and_width(tmp_path: Path) -> None:
    content = report(lora_store(tmp_path), "json", "--against", "published")
    ours = {(line["adapter"], line["bits"]): line for line in content["averages"]}
    found = {(line["adapter"], line["bits"], line["published"]): line for line in content["differences"]}
    assert set(found) == {("lora", 32, "LoRA"), ("adaptformer", 1, "Bi-AdaptFormer")}
    lora = found["lora", 32, "LoRA"]
    accuracy = {cell["task"]: cell["mean"] for cell in content["rows"] if cell["adapter"] == "lora"}
    assert lora["tasks"]["vtab_cifar"] == pytest.approx(
        accuracy["vtab_cifar"] - 0.671
    )  # the published 67.1 %
    assert lora["tasks"]["vtab_smallnorb_ele"] == pytest.approx(accuracy["vtab_smallnorb_ele"] - 0.440)
    binary = found["adaptformer", 1, "Bi-AdaptFormer"]
    headline = ours["adaptformer", 1]["mean_of_groups"]["mean"]
    assert binary["mean_of_groups"] == pytest.approx(headline - 0.770)  # h = 32, head not binary
    assert set(binary["tasks"].values()) == {None}
    *_, averages, by_task = grids_of(report(tmp_path, "markdown", "--against", "published")).values()
    assert by_task[0][:4] == ["ours", "published", "source", "cifar"]
    (line,) = [line for line in averages[1:] if line[1] == "LoRA"]
    theirs = row_of("LoRA").mean_of_groups
    assert averages[0][3] == "mean of groups"
    assert line[3] == f"{100 * (ours['lora', 32]['mean_of_groups']['mean'] - theirs):+.1f}"


def test_averages_of_a_part_of_the_suite_are_not_compared(tmp_path: Path) -> None:
    """Only the natural ones of the chosen tasks are a whole group."""
    tasks = ("--tasks", "natural,clevr_count")
    content = report(lora_store(tmp_path), "json", "--against", "published", *tasks)
    (lora,) = [line for line in content["differences"] if line["published"] == "LoRA"]
    assert len([value for value in lora["tasks"].values() if value is not None]) == 8
    assert lora["groups"]["natural"] is not None
    assert lora["groups"]["specialized"] is lora["groups"]["structured"] is None
    assert lora["mean_of_groups"] is lora["mean_of_tasks"] is None
    *_, averages, _ = grids_of(report(tmp_path, "markdown", "--against", "published", *tasks)).values()
    assert [line[-1] for line in averages[1:]] == ["-"] * len(averages[1:])


def test_nothing_published_enters_marks_or_comparisons(tmp_path: Path) -> None:
    store = lora_store(tmp_path)
    for form in ("text", "markdown", "latex"):
        ours, both = report(store, form), report(store, form, "--against", "published")
        marks = ("¹", "²", "**", r"\textbf", r"\underline", "worse than")
        cited = both.replace(ours.partition("training curves")[0].strip(), "")
        assert not [mark for mark in marks if mark in re.sub(r"^\*\*.*\*\*$", "", cited, flags=re.MULTILINE)]


def test_tasks_stand_in_the_order_of_the_benchmark(tmp_path: Path) -> None:
    _, ours, *_ = grids_of(report(vtab_store(tmp_path), "markdown")).values()
    order = """
        cifar caltech101 dtd oxford_flowers102 oxford_iiit_pet svhn sun397
        patch_camelyon eurosat resisc45 diabetic_retinopathy
        clevr_count clevr_dist dmlab kitti dsprites_loc dsprites_ori smallnorb_azi smallnorb_ele
    """
    assert ours[0][3:] == order.split()  # the order in which VTAB-1K results are published
