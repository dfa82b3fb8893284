"""The diagram of critical differences, and what can be read in figures."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Annotation, Text
from PIL import Image

from petl_bench.data import manifests
from petl_bench.report.figures import Figure, figures
from petl_bench.report.figures.style import MARKERS, lightened, looks
from petl_bench.report.tables import tabulate
from tests.test_figures import MARGIN, Ranks, drawn, points, ranking, rows_for, store


def ranked_figure(ranks: Ranks | None) -> list[Figure]:
    (table,), _ = tabulate(rows_for("sweep=none", "adapter=linear", "task=digits"), manifests())
    return figures([table], MARGIN, {0: ranks} if ranks else None)


def test_critical_difference_diagram() -> None:
    names = ["b, 1 bit", "a$_{x}$", "d {rank}", "c"]
    (figure,) = ranked_figure(ranking(names, [1.5, 1.0, 4.0, 3.5]))
    sheet = figure.draw()
    axes = sheet.axes[0]
    assert {text.get_text() for text in axes.texts} == {
        "a$_{x}$  1.00", "b, 1 bit  1.50", "3.50  c", "4.00  d {rank}",
    }  # fmt: skip
    marks = sorted(float(place[0][0]) for part in axes.collections if len(place := part.get_offsets()))
    assert marks == [1.0, 1.5, 3.5, 4.0]
    bars = {tuple(sorted(line.get_xdata())) for line in axes.get_lines() if line.get_linewidth() > 2}
    assert bars == {(1.0, 1.5), (3.5, 4.0)}
    assert figure.description.index("a$_{x}$ (1.00)") < figure.description.index("b, 1 bit (1.50)")
    assert "0.002" in figure.description


def test_a_diagram_says_where_no_test_could_show_differences() -> None:
    for name, count, said in [
        (
            "pocket",
            3,
            "5 tasks are too few to show differences among 3: one bar joins all",
        ),  # 3 pairs * 2 / 32
        ("pocket", 14, "5 tasks are too few to show differences among 14: one bar joins all"),
        ("vtab", 24, ""),  # 276 * 2 / 524288
    ]:
        tables, _ = tabulate(store(name), manifests())
        ranks = ranking([f"line {n}" for n in range(count)], [1.0 + n for n in range(count)], count)
        found = figures(tables[:1], MARGIN, {0: ranks})
        (figure,) = [figure for figure in found if figure.name.endswith("critical-difference")]
        for text in (figure.description, " ".join(figure.draw().get_suptitle().split())):
            assert said in text
            assert ("too few" in text) == bool(said)
            assert ("p = 0.002 (approximate: 5 tasks)" in text) == (name == "pocket")
            assert "p = 0.002" in text


def test_more_rows_than_the_tasks_can_tell_apart() -> None:
    """With 8 tasks the smallest p is 2 / 256: 6 pairs make 0.047, 10 pairs 0.078."""
    (table,), _ = tabulate(rows_for("sweep=none", "adapter=linear", "task=digits"), manifests())
    eight = replace(table, tasks=[replace(table.tasks[0], name=f"t{n}") for n in range(8)])
    for count, coarse in [(4, False), (5, True)]:
        ranks = ranking([f"line {n}" for n in range(count)], [1.0 + n for n in range(count)], count)
        (figure,) = figures([eight], MARGIN, {0: ranks})
        assert ("too few" in figure.description) is coarse
        assert "(approximate: 8 tasks)" in figure.description


@pytest.mark.parametrize(("count", "drawn_"), [(2, 0), (3, 1), (24, 1), (25, 0)])
def test_a_diagram_has_3_to_24_rows(count: int, drawn_: int) -> None:
    names = [f"line {number}" for number in range(count)]
    assert len(ranked_figure(ranking(names, [1.0 + number for number in range(count)]))) == drawn_


def test_a_diagram_of_a_test_without_answers() -> None:
    held = ranking(["a", "b", "c"], [2.0, 2.0, 2.0])
    (figure,) = ranked_figure(replace(held, p_holm=held.p_holm * np.nan, friedman_p=np.nan))
    assert Image.open(io.BytesIO(figure.png())).width == 1280


# what can be read


def texts_of(sheet: Sheet) -> list[Text]:
    """All that are seen; of ticks those within the axes."""
    ticks = {
        id(text) for axes in sheet.axes for axis in (axes.xaxis, axes.yaxis) for text in tick_texts(axis)
    }
    seen = [text for axes in sheet.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_visible()
            for place, text in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            if min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())]  # fmt: skip
    others = [text for text in sheet.findobj(Text) if id(text) not in ticks]
    return [text for text in [*seen, *others] if text.get_visible() and text.get_text()]


def tick_texts(axis: mpl.axis.Axis) -> list[Text]:
    return [text for tick in [*axis.majorTicks, *axis.minorTicks] for text in (tick.label1, tick.label2)]


@pytest.mark.parametrize("name", ["pocket", "grid", "shots", "vtab", "hostile", "quantizers", "scales"])
@pytest.mark.sampled(2)
def test_every_text_can_be_read(name: str) -> None:
    found = drawn(store(name))
    for figure in [figure for part, figure in found.items() if not re.search("shots-(2|4|8|16)-", part)]:
        sheet = figure.draw()
        texts = texts_of(sheet)
        assert all(text.get_fontsize() >= 8 for text in texts)
        assert not any(text.get_parse_math() for text in texts)
        boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
        page = sheet.bbox
        for text, box in boxes:
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
            assert inside, (figure.name, text, box.extents, page.extents)
        for (text, box), (other, second) in itertools.combinations(boxes, 2):
            over = min(box.x1, second.x1) - max(box.x0, second.x0)
            above = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert min(over, above) <= 0.5, (figure.name, text, other)
        marks = [sheet.axes[0].transData.transform(part) for part in points(sheet).values()]
        lines = [line.get_transform().transform_path(line.get_path()) for line in sheet.axes[0].get_lines()]
        for text in sheet.findobj(Annotation):
            box = Text.get_window_extent(text)
            near = box.padded(2 * sheet.dpi / 72)  # points
            assert not any(near.contains(*mark) for part in marks for mark in part), (figure.name, text)
            crossed = [line for line in lines if len(line.vertices) > 1 and line.intersects_bbox(box, False)]
            assert not crossed, (figure.name, text)


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("families", "variants"), [(10, 5), (3, 10), (1, 1)])
def test_series_differ_without_colour(families: int, variants: int) -> None:
    """In marker or dashes, else in the lightness of the fill by a tenth of the way from black to white."""
    styles = looks([str(n) for n in range(families)], [str(n) for n in range(variants)])
    assert len(styles) == families * variants
    for one, other in itertools.combinations(styles.values(), 2):
        fills = [luminance(lightened(look.colour, look.lightness)) for look in (one, other)]
        assert one.marker != other.marker or one.dashes != other.dashes or abs(fills[0] - fills[1]) > 0.1
    assert len(set(MARKERS)) == len(MARKERS)


def test_bits_are_told_by_lightness() -> None:
    axes = drawn(store("pocket"))["pocket-fixed-accuracy-bytes"].draw().axes[0]
    fills = {str(part.get_label()): part.lines[0].get_markerfacecolor() for part in axes.containers}
    for name in ("adaptformer", "lora"):
        few, some, many = (luminance(fills[f"{name} h16, {bits}"]) for bits in ("1 bit", "4 bits", "32 bits"))
        assert some - few > 0.15
        assert many - some > 0.15
