"""Comparing settings on held-out training images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from petl_bench.dev.search import halves, table
from tests import processes


@pytest.mark.parametrize("images", [10, 11])
@pytest.mark.parametrize("pair", [0, 3])
def test_two_seeds_score_every_image_once(images: int, pair: int) -> None:
    (train, held), (other_train, other_held) = (halves(images, 2 * pair + seed) for seed in (0, 1))
    assert np.array_equal(train, other_held)
    assert np.array_equal(held, other_train)
    assert sorted([*train, *held]) == list(range(images))


def test_a_table_has_means_over_groups_and_only_columns_that_differ() -> None:
    lines = [
        {"adapter": "lora", "task": task, "scale": scale, "adapter.dropout": 0.1, "seed": seed, "acc": acc}
        for scale, task, seed, acc in [
            (10.0, "a", 0, 0.5),
            (10.0, "a", 1, 0.7),
            (10.0, "b", 0, 1.0),
            (10.0, "c", 0, 0.0),
            (9.0, "a", 0, 0.25),
        ]
    ]
    assert table(lines, {"a": "one", "b": "two", "c": "two"}) == [
        ["scale", "mean of groups", "runs"],
        ["9.0", "25.0", "1"],
        ["10.0", "55.0", "4"],  # of 0.6 and 0.5
    ]


def test_runs_are_scored_once(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    where = "--workers 1 --device cpu --threads 1"
    command = f"-m petl_bench.dev.search {file} {where} sweep=none task=digits adapter=linear seed=0"
    for rates in ("0.01", "0.01,1e-9"):
        processes.run([sys.executable, *command.split(), f"train.lr={rates}", "train.epochs=2"], check=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["train.lr"] for line in lines] == [0.01, 1e-9]
    assert lines[0]["acc"] > 0.5 > lines[1]["acc"]  # a head that does not learn is no better than chance


def test_settings_of_launchers_have_no_use(tmp_path: Path) -> None:
    command = ["-m", "petl_bench.dev.search", str(tmp_path / "lines"), "launcher.device=cuda", "task=digits"]
    done = processes.run([sys.executable, *command])
    assert done.returncode == 2
    assert "launcher.device=cuda: has no use here; give --device, --threads or --workers" in done.stderr
