"""The golden data: stand-ins are what their script writes, and carried facts are those of the authors."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest

from tests import golden
from tests.golden import make
from tests.reference import released


def test_stand_ins_are_what_their_script_writes() -> None:
    expected = make.checkpoints() | make.few_shot()
    for name, content in expected.items():
        assert (golden.STAND_INS / name).read_bytes() == content, name
    found = {p.relative_to(golden.STAND_INS).as_posix() for p in golden.STAND_INS.rglob("*") if p.is_file()}
    others = {"README.md", "released-scales.csv", "released-bytes.csv", "published-scales.csv"}
    assert {name for name in found - others if not name.endswith((".py", ".pyc"))} == set(expected)


@pytest.mark.parametrize("checkpoint", golden.CHECKPOINTS, ids=str)
@pytest.mark.sampled(4)
def test_the_reference_reads_what_it_writes(checkpoint: golden.Checkpoint) -> None:
    data = checkpoint.bin.read_bytes()
    found = released.read(data, checkpoint.method, checkpoint.hidden, checkpoint.classes)
    assert released.write(found, checkpoint.method) == data


def test_the_reference_reads_the_tensors_of_a_stand_in() -> None:
    for method, dataset, classes, hidden, _ in make.CHECKPOINTS:
        data = (golden.STAND_INS / f"petl-vit/{method}/{dataset}-bit1-dim{hidden}.bin").read_bytes()
        found, expected = (
            released.read(data, method, hidden, classes),
            make.checkpoint(method, classes, hidden),
        )
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            pairs = (
                zip(found[name], tensor, strict=True)
                if isinstance(tensor, tuple)
                else [(found[name], tensor)]
            )
            for one, other in pairs:
                np.testing.assert_array_equal(one, other)


def test_the_carried_facts_are_of_all_released_checkpoints() -> None:
    scales, sizes = golden.released("scales"), golden.released("bytes")
    assert len(scales) == 152  # 19 tasks, 4 methods, hidden 1 and 32
    assert set(scales) == set(sizes)
    assert set(scales.values()) <= {0.01, 0.1, 1.0, 10.0, 100.0}  # searched in arXiv 2307.16867
    table = golden.AUTHORS / "petl-vit-checkpoints.csv"
    if table.is_file():
        with table.open() as file:
            rows = {(row["method"], int(row["dim"]), row["task"]): row for row in csv.DictReader(file)}
        assert {key: float(row["scale"]) for key, row in rows.items()} == scales
        assert {key: float(row["bytes"]) for key, row in rows.items()} == sizes


def test_the_carried_scales_are_those_of_the_repositories() -> None:
    carried = golden.published()
    assert len(carried) == 114  # 19 tasks, 6 methods with their placements
    table = golden.AUTHORS / "published-scales.csv"
    if table.is_file():
        with table.open() as file:
            rows = [row for row in csv.DictReader(file) if row["method"] != "repblock_few_shot"]
        starts = {"True": "xavier", "False": "identity", "": ""}
        assert carried == {
            (row["method"], row["task"]): golden.Published(
                float(row["scale"]), row["rank_or_hidden"] or starts[row["xavier_init"]]
            )
            for row in rows
        }


@pytest.mark.parametrize("few_shot", golden.FEW_SHOT_SETS, ids=str)
def test_few_shot_lists_are_those_of_the_manifest(few_shot: golden.FewShotSet) -> None:
    manifest = few_shot.manifest
    for name, facts in manifest.lists.items():
        content = (few_shot.lists / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts.sha256
        labels = [int(line.rsplit(b" ", 1)[1]) for line in content.splitlines()]
        assert len(labels) == facts.lines
        counts = np.bincount(labels, minlength=manifest.classes)
        assert len(counts) == manifest.classes
        if name.startswith("train"):
            shots = int(name.split("_")[3].partition(".")[0])
            assert (counts == few_shot.lines(shots) // manifest.classes).all()
            assert len(set(content.splitlines())) == shots * manifest.classes
