"""`report`: its numbers against plain Python, its forms, its warnings."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.store import Store
from tests.conftest import error_of, petl, quickly, rows_of
from tests.made import make_row

# report


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five tasks, linear and LoRA, three seeds, with made-up results; seed 2 of LoRA lacks surfaces."""
    root = tmp_path_factory.mktemp("made_up")
    store = Store(root)
    runs = plan(["adapter=linear,lora", "bits=1", "seed=0,1,2"]).runs
    assert len(runs) == 30
    for number, spec in enumerate(runs):
        if (spec.adapter.name, spec.seed, spec.task.name) != ("lora", 2, "surfaces"):
            acc = (number * 37 % 101) / 101  # any values: all 30 differ
            adapter = bytes(100 + number)
            store.put(spec, make_row(spec, acc, adapter), adapter)
    return root


def summary(values: Sequence[float]) -> dict[str, object]:
    """Return n, mean and sample standard deviation (n - 1; from two values on), by Python's statistics."""
    mean = pytest.approx(statistics.mean(values), rel=1e-12) if values else None
    spread = pytest.approx(statistics.stdev(values), rel=1e-9) if len(values) > 1 else None
    return {"n": len(values), "mean": mean, "std": spread, "variants": 1}


def test_the_numbers_of_a_report(made_up: Path) -> None:
    done = quickly("report", "--store", made_up, "--format", "json")
    assert done.returncode == 0
    content = json.loads(done.stdout)
    assert set(content) >= {"rows", "warnings"}
    rates, uneven = content["warnings"]
    assert rates.startswith("learning rates differ")  # of linear some are tuned
    assert "not every row has the same seeds" in uneven  # seed 2 of LoRA lacks a task
    accuracy = {(r["adapter"], r["task"], r["seed"]): r["acc"] for r in rows_of(made_up)}
    groups = {
        "natural": ["digits"],
        "specialized": ["surfaces"],
        "structured": ["sprites_loc", "sprites_ori", "shapes_count"],
    }
    tasks = [task for names in groups.values() for task in names]
    assert len(content["rows"]) == 10  # 2 methods x 5 tasks
    for cell in content["rows"]:
        values = [accuracy.get((cell["adapter"], cell["task"], seed)) for seed in range(3)]
        expected = summary([value for value in values if value is not None])
        assert {key: cell[key] for key in expected} == expected
    for line in content["averages"]:
        name = line["adapter"]
        whole = [s for s in range(3) if all((name, task, s) in accuracy for task in tasks)]
        assert whole == ([0, 1, 2] if name == "linear" else [0, 1])
        of_groups = {
            (g, s): statistics.mean(accuracy[name, task, s] for task in names)
            for g, names in groups.items()
            for s in range(3)
            if all((name, task, s) in accuracy for task in names)
        }
        for group in groups:
            expected = summary([of_groups[group, s] for s in range(3) if (group, s) in of_groups])
            assert line["groups"][group] == expected
        headline = [statistics.mean(of_groups[g, s] for g in groups) for s in whole]
        assert line["mean_of_groups"] == summary(headline)
        plain = [statistics.mean(accuracy[name, task, s] for task in tasks) for s in whole]
        assert line["mean_of_tasks"] == summary(plain)


def test_a_cell_has_the_bytes_of_its_own_task(made_up: Path) -> None:
    rows = rows_of(made_up)
    for cell in json.loads(quickly("report", "--store", made_up, "--format", "json").stdout)["rows"]:
        own = [r["bytes_file"] for r in rows if (r["adapter"], r["task"]) == (cell["adapter"], cell["task"])]
        assert cell["bytes_file"] == pytest.approx(statistics.mean(own))


def test_forms_of_a_report(made_up: Path, tmp_path: Path) -> None:
    text = quickly("report", "--store", made_up).stdout
    first = next(r for r in rows_of(made_up) if r["task"] == "digits" and r["adapter"] == "linear")
    values = [r["acc"] for r in rows_of(made_up) if (r["task"], r["adapter"]) == ("digits", "linear")]
    shown = f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
    assert shown in text
    by_task = text[text.index("Test accuracy") :].splitlines()
    assert by_task[2].split() == ["natural", "specialized", "structured"]  # over their tasks
    assert "mean of groups" in text
    assert "mean of 5 tasks" in text
    assert first["protocol"] in text
    markdown = quickly("report", "--store", made_up, "--format", "markdown").stdout
    grid = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in grid[:4]}) == 1  # header, rule and two methods
    assert shown in markdown
    done = petl("report", "--store", made_up, "--out", "table.md", "--format", "markdown", cwd=tmp_path)
    assert done.stdout == ""
    assert (tmp_path / "table.md").read_text() == markdown


def test_one_seed_has_no_standard_deviation(made_up: Path) -> None:
    text = quickly("report", "--store", made_up, "--filter", "seed=0").stdout
    assert "±" not in text
    assert "mean of groups" in text


def cells_of(markdown: str) -> list[dict[str, str]]:
    """Return the rows of the first two Markdown tables (tasks, averages), joined, by column name."""
    joined: list[dict[str, str]] = []
    for part in ("Test accuracy", "Averages"):
        block = markdown.split(f"**{part}")[1].split("\n\n**", maxsplit=1)[0]
        grid = [line.strip("|").split("|") for line in block.splitlines() if line.startswith("|")]
        names = [name.strip() for name in grid[0]]
        lines = [dict(zip(names, (c.strip(" *") for c in line), strict=True)) for line in grid[2:]]
        joined = [a | b for a, b in zip(joined, lines, strict=True)] if joined else lines
    return joined


def test_tasks_that_nobody_ran_have_no_column_and_the_part_is_named(finished_store: Path) -> None:
    text = quickly("report", "--store", finished_store, "--format", "markdown").stdout
    assert "suite pocket (2 of 5 tasks: digits, sprites_loc)" in text
    lines = cells_of(text)
    assert len(lines) == 5  # linear, and two adapters at two widths
    averages = {"natural", "structured", "mean of groups", "mean of 2 tasks"}
    for line in lines:
        assert averages < set(line)
        assert not {"surfaces", "sprites_ori", "shapes_count", "specialized"} & set(line)
        assert all(re.fullmatch(r"\d+\.\d( §)?", line[name]) for name in ["digits", "sprites_loc", *averages])
        assert (line["tasks"], line["seeds"]) == ("2/2", "1")
    content = json.loads(quickly("report", "--store", finished_store, "--format", "json").stdout)
    assert {line["subset"] for line in content["averages"]} == {"digits,sprites_loc"}


def test_incomplete_averages_are_left_blank(made_up: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(made_up, store)
    for row in rows_of(store):
        if row["adapter"] == "lora" and row["task"] in ("surfaces", "sprites_ori"):
            shutil.rmtree(store / row["run_id"])
    _, line = cells_of(quickly("report", "--store", store, "--format", "markdown").stdout)
    blank = {"surfaces", "sprites_ori", "specialized", "structured", "mean of groups", "mean of 5 tasks"}
    assert {name: line[name] for name in blank} == dict.fromkeys(blank, "-")
    assert all(re.match(r"\d+\.\d", line[name]) for name in ("digits", "sprites_loc", "natural"))
    assert line["tasks"] == "3/5"
    content = json.loads(quickly("report", "--store", store, "--format", "json").stdout)
    whole, holed = content["averages"]
    assert holed["mean_of_groups"] == holed["mean_of_tasks"] == summary([])
    assert whole["mean_of_groups"]["n"] == 3
    assert "" in {line["subset"] for line in content["averages"]}


@pytest.mark.parametrize("given", ["digits,sprites_ori", "natural,sprites_ori", "glob([digi*,sprites_ori])"])
def test_a_part_of_a_suite_that_was_asked_for(given: str, made_up: Path) -> None:
    """Averages are over the two tasks alone: LoRA has its third seed on both."""
    done = quickly("report", "--store", made_up, "--format", "json", "--tasks", given)
    content = json.loads(done.stdout)
    assert {cell["task"] for cell in content["rows"]} == {"digits", "sprites_ori"}
    rows = rows_of(made_up)
    for line in content["averages"]:
        own = [r for r in rows if r["adapter"] == line["adapter"] and r["task"] in ("digits", "sprites_ori")]
        means = [statistics.mean(r["acc"] for r in own if r["seed"] == seed) for seed in range(3)]
        assert line["mean_of_tasks"] == line["mean_of_groups"] == summary(means)  # a group each
        assert set(line["groups"]) == {"natural", "structured"}
        assert (line["subset"], line["tasks"]) == ("digits,sprites_ori", "2/2")
    assert f"only runs with tasks={given} are shown: 12 of 29" in content["warnings"]
    text = quickly("report", "--store", made_up, "--tasks", given).stdout
    assert "suite pocket (2 of 5 tasks: digits, sprites_ori)" in text
    assert "surfaces" not in text


def test_a_task_of_that_name_is_meant_before_one_without_its_suite(tmp_path: Path) -> None:
    for task in ("digits", "pocket19_digits", "pocket19_clock"):
        (spec,) = plan(["sweep=none", f"task={task}", "adapter=linear", "protocol=fixed"]).runs
        Store(tmp_path).put(spec, make_row(spec, 0.5), b"adapter")
    for given, tasks in {
        "digits": {"digits"},
        "clock": {"pocket19_clock"},
        "clock,digits": {"digits", "pocket19_clock"},
        "pocket19_digits": {"pocket19_digits"},
    }.items():
        done = quickly("report", "--store", tmp_path, "--format", "json", "--tasks", given)
        assert {cell["task"] for cell in json.loads(done.stdout)["rows"]} == tasks


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("digit", "no run here is on 'digit'; did you mean 'digits'?"),
        ("digits,sprites_log", "no run here is on 'sprites_log'; did you mean 'sprites_loc'"),
        ("vtab_cifar", "no run here is on 'vtab_cifar'; known: digits, natural"),
        ("glob(vtab_*)", "no run here is on 'glob(vtab_*)'"),
        ("", "known: digits, natural"),
        ("digits,", "expected names of tasks"),
    ],
)
def test_unknown_tasks_are_refused_with_suggestions(given: str, said: str, made_up: Path) -> None:
    message = error_of(quickly("report", "--store", made_up, "--tasks", given))
    assert f"--tasks {given}" in message
    assert said in message
