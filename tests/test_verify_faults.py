"""`petl-bench data verify`: every planted fault is named."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from petl_bench.data.lists import read_list
from tests.planted import PLANTED, Planted
from tests.verifying import (
    TEST,
    copy_of,
    edit,
    found,
    kinds,
    verify,
)


@pytest.mark.parametrize("planted", PLANTED.values(), ids=list(PLANTED))
def test_a_planted_fault_is_named(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path, planted: Planted
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    planted.plant(root / "dtd")
    problems, summary = found(verify("vtab_dtd", root, warm, clean[1]))
    assert {problem["task"] for problem in problems} == {"vtab_dtd"}
    told = [problem for problem in problems if problem["kind"] not in planted.also]
    places = Counter((p["split"], p["kind"], p["path"]) for p in told)
    assert places == Counter(
        (split, kind, str(root / "dtd" / path)) for split, kind, path, _ in planted.finds
    )
    for split, kind, _, pattern in planted.finds:
        messages = [p["message"] for p in told if (p["split"], p["kind"]) == (split, kind)]
        assert any(re.search(pattern, message) for message in messages), messages
    assert summary["problems"] == len(problems)
    assert [task["problems"] for task in summary["tasks"]] == [len(problems)]


def test_no_plant_has_written_through_to_the_originals(clean: tuple[Path, Path], tmp_path: Path) -> None:
    # Runs after those above: with a new cache, every file is read again.
    assert kinds(verify("vtab_dtd", clean[0], tmp_path / "cache", clean[1])) == set()


@pytest.mark.parametrize(
    "line",
    [
        "images/test/\0.jpg 1",
        f"images/test/{'0' * 300}.jpg 1",
        "images/test/000000.jpg ²",
        f"images/test/000000.jpg {10**30}",
        f"images/test/000000.jpg {'9' * 5000}",
    ],
    ids=["name with a zero byte", "name too long", "digit of another kind", "beyond 64 bits", "5000 digits"],
)
def test_a_line_beyond_reason_is_a_fault_and_no_crash(
    clean: tuple[Path, Path], warm: Path, tmp_path: Path, line: str
) -> None:
    root = tmp_path / "root"
    copy_of(clean[0] / "dtd", root / "dtd")
    edit(root / "dtd/test.txt", lambda lines: [line, *lines[1:]])
    problems, _ = found(verify("vtab_dtd", root, warm, clean[1]))
    assert {problem["split"] for problem in problems} == {TEST}
    assert {"malformed_line", "label_range", "missing_file"} & {problem["kind"] for problem in problems}


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example("a.jpg ²\n".encode())
@example(b"a.jpg 99999999999999999999\n")
@example(b"a.jpg -9223372036854775809\n")
@example(b"a.jpg --1\n")
def test_any_list_is_read_or_its_faults_named(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    listing = read_list(path, path.parent)
    assert len(listing.names) == len(listing.labels)
    assert listing.names or listing.faults
    for name in listing.names:
        assert not os.path.isabs(name)
        assert ".." not in name.split("/")
