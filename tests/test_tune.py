"""Choosing scales and learning rates of the bundled suite on val."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from petl_bench.config import plan
from petl_bench.dev.tune import choose, written
from tests import processes


def test_the_best_mean_wins_and_the_smaller_value_on_a_tie() -> None:
    runs = plan(["sweep=none", "adapter=lora", "task=digits,surfaces", "seed=0,1", "scale=10,1,0.1"]).runs
    of_scale = {0.1: (0.5, 0.7), 1.0: (0.75, 0.75), 10.0: (1.0, 0.5)}  # by seed
    scores = [of_scale[run.scale][run.seed] if run.task.name == "digits" else 0.5 for run in runs]
    assert choose(runs, scores, "scales") == {"lora": {"digits": 1.0, "surfaces": 0.1}}


def test_a_table_keeps_what_was_not_chosen_anew() -> None:
    text = written(
        "", "scales", "scales from 1, 2 with seeds 0", {"lora": {"digits": 2.0}, "mosa": {"tree": 1.0}}
    )
    text = written(
        text, "lrs", "lrs from 0.1, 0.2 with seeds 0", {"lora": {"digits": 0.1}, "ssf": {"tree": 0.2}}
    )
    text = written(text, "lrs", "lrs from 0.3 with seeds 1", {"lora": {"digits": 0.3}})
    assert yaml.safe_load(text)["tables"] == [
        {
            "adapter": "lora",
            "note": "scales from 1, 2 with seeds 0; lrs from 0.3 with seeds 1",
            "scales": {"digits": 2.0},
            "lrs": {"digits": 0.3},
        },
        {"adapter": "mosa", "note": "scales from 1, 2 with seeds 0", "scales": {"tree": 1.0}},
        {"adapter": "ssf", "note": "lrs from 0.1, 0.2 with seeds 0", "lrs": {"tree": 0.2}},
    ]


def test_rates_are_chosen_by_training(tmp_path: Path) -> None:
    """At a rate of 1e-9 the head stays as it begins, which is no better than chance."""
    out = tmp_path / "tuned.yaml"
    where = "--workers 1 --device cpu --threads 1"
    command = f"-m petl_bench.dev.tune --lrs 1e-9,0.01 --seeds 0 {where} --out {out} linear"
    processes.run([sys.executable, *command.split()], check=True)
    (table,) = yaml.safe_load(out.read_text())["tables"]
    assert table["lrs"] == {run.task.name: 0.01 for run in plan(["adapter=linear"]).runs}
