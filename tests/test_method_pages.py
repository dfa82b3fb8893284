"""The pages in docs/methods: each method has one, and what their tables state is true. Links: test_docs."""

import dataclasses
import re
from pathlib import Path

import pytest

from petl_bench.adapters import ADAPTERS
from petl_bench.model.costs import Cost, costs
from petl_bench.model.heads import HEADS
from petl_bench.quantizers.base import CODEBOOKS

FOLDER = Path(__file__).parent.parent / "docs" / "methods"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(FOLDER.glob("*.md"))}
NOT_METHODS = {"README.md", "quantizers.md", "heads.md"}
HEADINGS = (
    "Formula",
    "Where it attaches",
    "Source",
    "Settings",
    "Size",
    "Quantization and storage",
    "Scales and learning rates",
)


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the rows of all tables of a page, with the cells by the names of their columns."""
    found = []
    for block in re.findall(r"^\|.*\n\|[ :|-]+\n(?:\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip(" `") for cell in line[1:-1].split("|")] for line in block.splitlines()]
        found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def sizes(text: str) -> dict[str, dict[str, str]]:
    """Return the rows of the tables of sizes of a page by adapter, without links."""
    rows = [row for table in tables(text) for row in table if "Trainable parameters" in row]
    return {re.sub(r"\[`?|`?\].*", "", row["Adapter"]): row for row in rows}


@pytest.fixture(scope="module")
def known_costs() -> dict[str, Cost]:
    return {cost.name: cost for cost in costs(ADAPTERS)}


def test_the_index_links_every_method_to_a_page_that_describes_it() -> None:
    links = dict(re.findall(r"^\| \[`(\w+)`\]\(([\w.]+)\)", PAGES["README.md"], re.MULTILINE))
    assert list(links) == sorted(ADAPTERS)
    assert set(links.values()) == set(PAGES) - NOT_METHODS
    for name, page in links.items():
        assert re.search(rf"^# .*\b{name}\b", PAGES[page]), f"{page}: {name} is not in the title"
        assert name in sizes(PAGES[page]), f"{page} does not state the size of {name}"


@pytest.mark.parametrize("page", sorted(set(PAGES) - NOT_METHODS))
def test_a_page_has_all_sections(page: str) -> None:
    headings = re.findall(r"^## (.+)", PAGES[page], re.MULTILINE)
    assert headings == list(HEADINGS)


def test_sizes_are_those_that_the_methods_declare(known_costs: dict[str, Cost]) -> None:
    columns = {
        "hidden": "hidden",
        "params": "Trainable parameters",
        "bytes_1_bit": "Bytes at 1 bit",
        "bytes_32_bit": "Bytes at 32 bits",
    }
    for page, text in PAGES.items():
        for name, row in sizes(text).items():
            stated = {key: int(row[column].replace(",", "")) for key, column in columns.items()}
            assert stated == {key: getattr(known_costs[name], key) for key in columns}, f"{page}: {name}"
    assert set(sizes(PAGES["README.md"])) == set(ADAPTERS)


def test_settings_are_the_fields_of_the_methods_with_their_defaults() -> None:
    stated: dict[str, dict[str, str]] = {}
    for text in PAGES.values():
        for table in tables(text):
            for row in table:
                for name in (name for name in ADAPTERS if row.get(name, "-") != "-"):
                    key = row["Setting"].removeprefix("adapter.")
                    stated.setdefault(name, {})[key] = row[name]
                    assert len(row["Description"]) > 20
    for name in ADAPTERS:
        config = ADAPTERS.get(name).config
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        texts = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in defaults.items()
        }
        assert stated.get(name, {}) == texts, name


def test_levels_are_those_of_the_codebooks() -> None:
    rows = [row for table in tables(PAGES["quantizers.md"]) for row in table if "Positive levels" in row]
    assert len(rows) == 6
    for row in rows:
        levels = CODEBOOKS.get(row["Quantizer"]).levels(int(row["Bits"]))
        stated = [float(level) for level in row["Positive levels"].split(", ")]
        assert stated == pytest.approx(levels[len(levels) // 2 :], abs=5e-5)


def test_every_codebook_and_head_has_a_section() -> None:
    assert all(f"### {name}\n" in PAGES["quantizers.md"] for name in CODEBOOKS)
    assert all(f"| `{name}` |" in PAGES["heads.md"] for name in HEADS)
