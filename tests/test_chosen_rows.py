"""Blocks of pages about chosen rows of a kept result: pairs, rows by bytes, and changed rows."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from petl_bench.dev.chosen_rows import by_size, changed_one_at_a_time, compared
from petl_bench.dev.documentation import Documentation
from petl_bench.errors import UserError
from petl_bench.report import Report


@pytest.fixture(scope="module")
def demo() -> Report:
    return Documentation(Path(__file__).parent.parent).report("demo")


def cells(text: str) -> list[list[str]]:
    """Return the cells of the rows of a Markdown table, its titles left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_rows_are_in_the_order_of_bytes_and_the_front_gains_with_each(demo: Report) -> None:
    every, front = cells(by_size(demo, "all")), cells(by_size(demo, "front"))
    assert len(every) == 5  # linear, and two methods at two bit-widths
    sizes = [int(row[2].replace(",", "")) for row in every]
    assert sizes == sorted(sizes)
    assert [row[0] for row in front] == [row[0] for row in every if row[3].endswith("§")]
    gains = [float(row[3]) for row in front]
    assert gains == sorted(gains)
    assert cells(by_size(demo, "adapter=linear")) == [every[0]]


def test_a_difference_is_that_of_the_means_over_tasks(demo: Report) -> None:
    ((first, _, second, _, difference, over_tasks, *_),) = cells(
        compared(demo, "adapter=lora,bits=1 adapter=linear")
    )
    assert (first, second) == ("lora h16, 1 bit, dropout=0.0, start 0.02", "linear")
    means = {
        row.key["adapter"]: row.mean_of_tasks.mean for row in demo.tables[0].rows if row.key["bits"] == 1
    }
    (linear,) = [row.mean_of_tasks.mean for row in demo.tables[0].rows if row.key["adapter"] == "linear"]
    assert float(difference) == pytest.approx(100 * (means["lora"] - linear), abs=0.051)
    assert over_tasks.endswith("undecided")  # five tasks cannot decide at 5 %: 2 / 2**5 is more


def test_a_space_within_a_value_is_written_as_plus(tmp_path: Path) -> None:
    kept = Path(__file__).parent.parent / ".readme" / "demo.jsonl"
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["settings"] = {1: "a=1 b=2", 32: "a=1"}.get(row["bits"], "")
    (tmp_path / ".readme").mkdir()
    (tmp_path / ".readme" / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    two = Documentation(tmp_path).report("two")
    chosen = [row for row in two.tables[0].rows if row.key["settings"] == "a=1 b=2"]
    assert len(cells(by_size(two, "settings=a=1+b=2"))) == len(chosen) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter=lora adapter=linear", "adapter=lora is 2 rows of the table"),
        ("adapter=houlsby adapter=linear", "adapter=houlsby is 0 rows"),
        ("adapter=linear", "expected two configurations"),
    ],
)
def test_refused(demo: Report, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compared(demo, text)


def test_a_changed_row_stands_below_the_one_that_it_differs_from_in_one_setting() -> None:
    report = Documentation(Path(__file__).parent.parent).report("leave_one_out")
    table = cells(changed_one_at_a_time(report))
    names = {"without start 0.02", "without dropout=0.0", "head linear", "container safetensors"}
    changes = {"nothing", "statistics exact", "statistics shortest", *names}
    for base in (row for row in table if row[1] == "nothing"):
        own = [row for row in table if row[0] == base[0]]
        assert own[0] == base
        assert base[-1] == "-"
        assert {row[1] for row in own} == changes
        for row in own[1:]:
            shown = [float(text.split()[0]) for text in (row[5], base[5])]
            assert float(row[6]) == pytest.approx(shown[0] - shown[1], abs=0.11)  # of rounded means
    kept = Path(__file__).parent.parent / ".readme" / "leave_one_out.jsonl"
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    for head, found in (
        ("bits2", table[0]),
        ("linear", next(row for row in table if row[1] == "head linear")),
    ):
        own = [
            row
            for row in rows
            if (row["adapter"], row["hidden"], row["head"]) == ("adaptformer", 4, head)
            if (row["start"], row["settings"]) == (0.02, "dropout=0.0")
            if (row["statistics"], row["container"]) == ("short", "short")
        ]
        sizes = [fmean(row[name] for row in own) for name in ("bytes_adapter", "bytes_head", "bytes_file")]
        assert found[2:5] == [f"{size:,.0f}" for size in sizes]


def test_without_one_such_row_there_is_no_table(demo: Report) -> None:
    with pytest.raises(UserError, match="linear h0: 1 rows, of which 1 differ from each other one"):
        changed_one_at_a_time(demo)
