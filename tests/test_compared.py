"""Many comparisons of bit-widths are printed as tables in place of sentences."""

from dataclasses import replace
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.report import FORMATS, Report, build
from petl_bench.report.sections import MOST_SENTENCES
from tests.made import make_row

SEEDS = {32: (-0.0013, 0.0, 0.0013), 1: (0.0, 0.0013, -0.0013)}


def report(adapters: int) -> Report:
    """Report one bit 0.4 points below 32 on each of two tasks, with seeds that differ by SEEDS.

    The adapters have 100 and 3,200 bytes.
    """
    (spec,) = plan(["task=digits", "adapter=adaptformer", "bits=1", "seed=0"]).runs
    first = make_row(spec, 0.5, suite="made-up", group="any")
    rows = [
        replace(
            first,
            adapter=f"a{number}",
            bits=bits,
            quantizer="none" if bits == 32 else "l1_median",
            task=task,
            seed=seed,
            acc=0.7 + offset - (0.004 if bits == 1 else 0.0),
            bytes_adapter=100 * bits,
        )
        for number in range(adapters)
        for bits in (1, 32)
        for task in ("t0", "t1")
        for seed, offset in enumerate(SEEDS[bits])
    ]
    return build(rows, {}, 0.01, Path("results"))


def test_a_row_holds_difference_intervals_verdicts_and_savings() -> None:
    text = FORMATS.get("markdown")(report(MOST_SENTENCES + 1), Path())
    assert isinstance(text, str)
    # By hand, in points: seeds are paired, so each task has the differences -0.27, -0.27 and -0.66, whose
    # variance is 0.0507. The error is sqrt(2 * 0.0507 / 3) / 2 = 0.09192 of 4 degrees; t at 97.5 % is 2.7764,
    # so the interval is -0.4 -+ 0.255. Holm over 9: no difference has t = 4.35, 9 * 0.0121 > 0.05; -1 point
    # or less has t = 6.527, 9 * 0.0014 < 0.05. Mixed model: tasks are equal, so the error is that of six
    # differences, sqrt(4 * 0.0507 / 5 / 6) = 0.0822, with 1 degree: t is 12.706, the interval -0.4 -+ 1.045.
    line = (
        "| a0 h16, 1 bit | 32 | -0.4 | -0.4 to -0.4 | undecided | -0.7 to -0.1 | equivalent | -1.4 to +0.6 | "
        "undecided | 3,100 (97 %) |"
    )
    assert line in text
    assert text.count("| equivalent |") == MOST_SENTENCES + 1
    assert "is 1 bit worse" not in text


def test_bit_widths_stand_side_by_side() -> None:
    made = report(MOST_SENTENCES + 1)
    text = str(FORMATS.get("markdown")(made, Path()))
    assert "| configuration | 1 bit | 32 bits | bytes at 1 bit | bytes at 32 bits |" in text
    # 70.0 points at 32 bits and 0.4 fewer at 1, +- 0.13 over seeds (SEEDS), for all alike: none is best.
    assert text.count(" h16 | 69.6 ± 0.1 | 70.0 ± 0.1 | 100 | 3,200 |") == MOST_SENTENCES + 1


def test_a_row_without_other_widths_is_included() -> None:
    rows = report(MOST_SENTENCES + 1).results
    alone = [
        replace(row, adapter="alone", acc=row.acc - 0.1)
        for row in rows
        if row.adapter == "a0" and row.bits == 32
    ]
    text = str(FORMATS.get("markdown")(build([*rows, *alone], {}, 0.01, Path("results")), Path()))
    assert "| alone h16 | - | *60.0 ± 0.1* | - | 3,200 |" in text
    assert "| a1 h16 | 69.6 ± 0.1 | **70.0 ± 0.1** | 100 | 3,200 |" in text


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_few_comparisons_are_sentences(form: str) -> None:
    few, many = (
        str(FORMATS.get(form)(report(count), Path())) for count in (MOST_SENTENCES, MOST_SENTENCES + 1)
    )
    assert few.count("is 1 bit worse than 32 bits?") == MOST_SENTENCES
    assert "Fewer bits compared with the most bits" not in few
    assert "is 1 bit worse" not in many
    titles = 2 if form == "html" else 1  # the page has a caption and a label for screen readers
    assert many.count("Fewer bits compared with the most bits") == titles
