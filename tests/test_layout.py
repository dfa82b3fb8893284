"""Tables and lines within the width of a terminal: nothing is cut, nothing but a single word is wider."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from petl_bench.data import manifests
from petl_bench.layout import Column, table_lines, wrapped
from petl_bench.report import MARGIN, Report, build, for_terminal
from petl_bench.types import row_from_dict
from tests.conftest import SWEEP, quickly

ROWS = Path(__file__).parent.parent / ".readme"
WORDS = strategies.text("ab,1", min_size=1, max_size=12)
PHRASES = strategies.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@strategies.composite
def tables(draw: strategies.DrawFn) -> tuple[list[Column], int]:
    """Columns of a table, and the number of those that say what a row is."""
    height, labels = draw(strategies.integers(1, 3)), draw(strategies.integers(1, 4))
    columns = []
    for number in range(labels + draw(strategies.integers(0, 12))):
        texts = PHRASES if number < labels else WORDS
        cells = draw(strategies.lists(texts, min_size=height, max_size=height))
        over = "" if number < labels else draw(strategies.sampled_from(["", "one", "two"]))
        columns.append(Column(draw(PHRASES), cells, over, left=number < labels))
    return columns, labels


def words(texts: list[str]) -> list[str]:
    return sorted(word.strip(",") for text in texts for word in text.split())


@hypothesis.given(table=tables(), width=strategies.integers(60, 200))
def test_a_table_fits_and_loses_nothing(table: tuple[list[Column], int], width: int) -> None:
    columns, labels = table
    lines = table_lines(columns, labels, width)
    assert max(map(len, lines)) <= width
    printed = words(lines)
    for column in columns[labels:]:
        for word in words([*column.cells, column.name]):
            printed.remove(word)  # as often as it occurs
    for column in columns[:labels]:
        assert {*words([*column.cells])} <= {*words(lines)}


def test_a_table_of_labels_alone_takes_the_whole_width() -> None:
    columns = [Column(f"c{number}", ["x" * 30, "y" * 30], left=True) for number in range(4)]
    lines = table_lines(columns, 4, 80)
    assert max(map(len, lines)) > 60  # two of the texts and their names side by side


@hypothesis.given(line=strategies.text("ab ", max_size=300), width=strategies.integers(1, 200))
def test_a_line_is_wrapped_at_spaces(line: str, width: int) -> None:
    lines = wrapped(line, width, "")
    assert " ".join(lines).split() == line.split()
    assert all(len(part) <= width or " " not in part.strip() for part in lines)
    assert wrapped(line, None) == [line]


@cache
def report_of(name: str) -> Report:
    rows = [row_from_dict(json.loads(line)) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]
    return build(rows, manifests(), MARGIN, Path("results"), cite=name == "demo")


def too_wide(text: str, width: int) -> list[str]:
    """Lines that are wider than a width, and no single word."""
    return [line for line in text.splitlines() if len(line) > width and " " in line.strip()]


@pytest.mark.parametrize("name", ["demo", "bytes", "methods"])
@hypothesis.settings(max_examples=5)
@hypothesis.given(width=strategies.integers(60, 200))
def test_a_report_fits(name: str, width: int) -> None:
    text = for_terminal(report_of(name), width)
    assert too_wide(text, width) == []
    first = text.splitlines()[: text.splitlines().index("")]
    assert "".join(first).startswith("Averages")


def test_what_all_rows_share_is_in_the_title() -> None:
    text = for_terminal(report_of("demo"), 80)
    title, table = text.split("\n\n")[:2]
    shared = "settings dropout=0.0, hidden 16, start 0.02, tasks 5/5, seeds 1"
    assert " ".join(title.split()).endswith(shared)
    assert "hidden" not in table


COMMANDS = [
    ["report", "--store", "STORE"],
    ["sweep", "--dry-run", "--store", "STORE", *SWEEP, "hidden=8,16"],
    ["sweep", "--dry-run", "--store", "STORE", "sweep=frontier", "seed=0", "task=digits"],
    ["store", "ls", "--store", "STORE"],
    ["inspect", "RUN"],
    *(["ls", kind] for kind in ("adapters", "tasks", "keys", "sweeps", "backbones")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_commands_fit_a_terminal(command: list[str], finished_store: Path) -> None:
    places = {"STORE": finished_store, "RUN": sorted(finished_store.glob("[!.]*"))[0]}
    done = quickly(*(places.get(part, part) for part in command), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert too_wide(done.stdout, 80) == []


def test_a_pipe_has_no_width(finished_store: Path) -> None:
    done = quickly("report", "--store", finished_store, COLUMNS="")
    (line,) = [
        line for line in done.stdout.splitlines() if line.startswith("  adapter ") and "file bytes" in line
    ]
    assert line.endswith("seconds per run   tasks")
    (title,) = [line for line in done.stdout.splitlines() if line.startswith("Averages (%)")]
    assert title.endswith("pixel normalization none")
