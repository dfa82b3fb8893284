"""The HTML page of a report, as a parser reads it."""

from __future__ import annotations

import dataclasses
import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from petl_bench.report import page as page_module
from petl_bench.report.page import PageContent, page
from tests import pages

VOID = {"meta", "img", "input", "br", "link", "hr"}


@pytest.fixture(scope="module", params=["report", "hostile"])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PageContent:
    return pages.hostile() if request.param == "hostile" else pages.report(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> PageContent:
    return pages.report(tmp_path_factory.mktemp("page"))


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each; fails where elements are not balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for number in self.open:
            self.texts[number] = self.texts.get(number, "") + data

    def named(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [
            (tag, attributes, self.texts.get(number, ""))
            for number, (tag, attributes) in enumerate(self.elements)
            if tag in tags
        ]


def data_of(html: str) -> dict[str, Any]:
    (text,) = [text for _, attributes, text in Parsed(html).named("script") if "type" in attributes]
    return json.loads(text)


def column(held: dict[str, list[Any]], count: int) -> list[Any]:
    """Decode a column of the page."""
    if "i" in held:
        return [held["v"][number] for number in held["i"]]
    return held["v"] * count if len(held["v"]) == 1 else held["v"]


def test_a_page_is_sound_html_of_its_own(content: PageContent) -> None:
    html = page(content)
    parsed = Parsed(html)
    assert html.startswith("<!DOCTYPE html>")
    assert parsed.named("title")[0][2] == content.title
    everything = [(tag, *pair) for tag, attributes in parsed.elements for pair in attributes.items()]
    assert not [found for found in everything if found[1].startswith("on") or found[1] == "style"]
    urls = [value or "" for _, key, value in everything if key in ("src", "href", "action", "srcset", "data")]
    assert all(re.match("#[a-z]|data:image/svg", url) for url in urls), urls
    assert not [found for found in everything if found[0] in ("link", "iframe", "base", "form", "object")]
    ids = [value for _, key, value in everything if key == "id"]
    assert len(ids) == len(set(ids))
    wanted = [v for _, key, v in everything if key in ("for", "aria-labelledby", "aria-describedby")]
    assert set(wanted) | {url[1:] for url in urls if url[0] == "#"} <= set(ids)
    levels = [int(tag[1]) for tag, _, _ in parsed.named("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    (image,) = parsed.named("img")
    assert image[1]["alt"] == content.figures[0].description


def test_only_the_hashed_script_and_style_may_run(report: PageContent) -> None:
    parsed = Parsed(page(report))
    (policy,) = [found["content"] for _, found, _ in parsed.named("meta") if "http-equiv" in found]
    directives = dict(part.split(" ", 1) for part in (policy or "").split("; "))
    assert directives["default-src"] == "'none'"
    for directive, tag in [("script-src", "script"), ("style-src", "style")]:
        (text,) = [text for _, attributes, text in parsed.named(tag) if "type" not in attributes]
        assert directives[directive] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_summary_tables_are_in_the_html(report: PageContent) -> None:
    parsed = Parsed(page(report))
    accuracy, cost = [text for _, _, text in parsed.named("table")][:2]
    assert "mean of groups" in accuracy
    assert "bits per weight" in cost
    assert len(re.findall(r"\d second best", accuracy)) > 2
    groups = [(a["colspan"], text) for _, a, text in parsed.named("th") if a.get("scope") == "colgroup"]
    assert groups[:4] == [("5", "averages"), ("1", "natural"), ("1", "specialized"), ("3", "structured")]
    assert [text for _, _, text in parsed.named("noscript")]
    assert "lora is worse" in [text for _, _, text in parsed.named("li")]
    (compared,) = [text for _, _, text in parsed.named("table") if "unadjusted 95 % intervals" in text]
    assert "lora h16, 32 bits" in compared
    assert "-1.41" in compared


def test_the_headline_comes_before_all_else_that_can_be_long(report: PageContent) -> None:
    text = page(report)
    (means,) = [c.cells for c in report.sections[0].averages.columns if c.name == "mean of groups"]
    values = [cell.text.split(" §")[0] for cell in means if cell.text != "-"]
    best = max(values, key=lambda value: float(value.split()[0]))
    assert f"<strong>{best} %</strong> is the best mean of groups" in text
    assert text.index("best mean of groups") < text.index("<nav") < text.index("a warning")


def test_the_embedded_data_are_the_rows(content: PageContent) -> None:
    data = data_of(page(content))
    count = len(content.results)
    assert data["count"] == count
    columns = {key: column(held, count) for key, held in data["all"].items()}
    assert [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)] == [
        vars(row) | {"variants": 1} for row in content.results
    ]
    urls = [column(data["links"][key], count) for key in ("spec", "adapter")]
    found = [
        tuple(u.replace("{}", row.run_id) for u in pair)
        for row, *pair in zip(content.results, *urls, strict=True)
    ]
    assert found == [content.links(row.run_id) for row in content.results]


def test_rows_take_little_room(report: PageContent) -> None:
    few = dataclasses.replace(report, results=report.results[:35], figures=())
    assert len(page(few).encode()) < 150_000


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//host/file", "https://host/file"])
def test_a_link_that_leaves_is_refused(report: PageContent, url: str) -> None:
    with pytest.raises(ValueError, match="not relative"):
        page(dataclasses.replace(report, links=lambda _: (url, "")))


def test_a_page_of_nothing() -> None:
    parsed = Parsed(page(pages.content_of([])))
    assert not parsed.named("td")


def contrast(first: str, second: str) -> float:
    """Of two colours, as WCAG has it."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme: int) -> None:
    css = Path(page_module.__file__).with_name("page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", block))
    for text in ("text", "muted", "link"):
        for ground in ("surface", "tint", "cited", "warning"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
