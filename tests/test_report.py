"""`report`: its numbers against plain Python, its forms, its warnings."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.run.metadata import recipe_hash
from petl_bench.store import ROW, Store
from tests.conftest import (
    error_of,
    make_row,
    petl,
    quickly,
    rows_of,
)

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


def test_a_table_warns_of_mixed_provenance(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for spec, changes in zip(
        plan(["task=digits", "adapter=linear", "seed=0,1"]).runs,
        [{}, {"git_revision": "another", "torch_version": "9", "pillow_version": "9", "git_dirty": True}],
        strict=True,
    ):
        store.put(spec, make_row(spec, 0.5, **changes), b"adapter")
    done = quickly("report", "--store", tmp_path, "--format", "json")
    warnings = json.loads(done.stdout)["warnings"]
    for what in (
        "2 different git revisions",
        "2 different torch versions",
        "2 different pillow versions",
        "uncommitted",
    ):
        assert any(what in warning for warning in warnings)
        assert what in done.stderr
    assert (
        "note: runs come from 2 different git revisions"
        in quickly("report", "--store", tmp_path, "--format", "markdown").stdout
    )
    clean = quickly("report", "--store", tmp_path, "--format", "json", "--filter", "seed=0")
    assert json.loads(clean.stdout)["warnings"] == ["only runs with seed=0 are shown: 1 of 2"]
    assert clean.stderr == "warning: only runs with seed=0 are shown: 1 of 2\n"


MACHINES = [
    (
        {"device": "AMD EPYC", "kernels": "AVX2, 1 thread"},
        {"device": "Intel Xeon", "kernels": "AVX512, 1 thread"},
    ),
    ({"kernels": "AVX2, 1 thread"}, {"kernels": "AVX2, 2 threads"}),
    ({"device": "AMD EPYC", "kernels": "AVX2, 1 thread"}, {"device": "Intel Xeon"}),  # the second row is old
]


@pytest.mark.parametrize("machines", MACHINES, ids=["processors", "threads", "an old row"])
def test_a_report_warns_where_one_line_mixes_processors_or_kernels(
    tmp_path: Path, machines: tuple[dict[str, str], dict[str, str]]
) -> None:
    """Seed 0 of LoRA was run here and seed 1 there; each other line is from one machine."""
    store = Store(tmp_path)
    for spec in plan(["sweep=none", "task=digits", "adapter=linear,lora", "seed=0,1", "scale=1"]).runs:
        there = spec.seed if spec.adapter.name == "lora" else 0
        store.put(spec, make_row(spec, 0.5, **machines[there]), b"adapter")
    said = [text for text in report_of(tmp_path)["warnings"] if "mix runs of several processors" in text]
    assert len(said) == 1
    assert said[0].startswith("rows of lora mix")
    assert all(value in said[0] for machine in machines for value in machine.values())
    store.put(spec, make_row(spec, 0.5, **machines[0]), b"adapter")
    assert report_of(tmp_path)["warnings"] == []
    old = make_row(spec, 0.5, device=machines[0].get("device", "made-up"))
    store.put(spec, old, b"adapter")
    assert report_of(tmp_path)["warnings"] == [], "nothing is known about the kernels of an old row"


def report_of(store: Path) -> dict:
    done = quickly("report", "--store", store, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_draws_of_the_training_images_are_repetitions_as_seeds_are(tmp_path: Path) -> None:
    axes = ["task=glob(fgvc_*)", "shots=1,2", "split_seed=0,1,2", "seed=0,1", "adapter=lora", "scale=1"]
    accuracy: dict[tuple[int, str], list[float]] = {}
    for number, spec in enumerate(plan(["sweep=none", *axes]).runs):
        accuracy.setdefault((spec.task.shots, spec.task.name), []).append(number * 37 % 101 / 101)
        Store(tmp_path).put(spec, make_row(spec, number * 37 % 101 / 101), b"adapter")
    content = report_of(tmp_path)
    assert content["warnings"] == []
    assert len(content["rows"]) == 10  # five sets at 1 and at 2 shots: a table each
    for cell in content["rows"]:
        expected = summary(accuracy[cell["shots"], cell["task"]])
        assert expected["n"] == 6  # three draws with two seeds each
        assert {key: cell[key] for key in expected} == expected
    for line in content["averages"]:
        held = [accuracy[line["shots"], task] for task in dict.fromkeys(c["task"] for c in content["rows"])]
        headline = [statistics.mean(values) for values in zip(*held, strict=True)]
        assert line["mean_of_tasks"] == summary(headline)
    text = quickly("report", "--store", tmp_path).stdout
    assert "1 shot," in text
    assert "2 shots" in text


def test_altered_data_have_a_table_of_their_own(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("vtab_cifar: {splits: {test: 40}}")
    store = tmp_path / "store"
    for override, acc in [("", 0.5), (str(sizes), 0.75)]:
        run = ["sweep=none", "task=vtab_cifar", "adapter=linear", f"data.override={override}"]
        (spec,) = plan(run).runs
        Store(store).put(spec, make_row(spec, acc), b"adapter")
    content = report_of(store)
    means = {c["altered"]: (c["n"], c["mean"]) for c in content["rows"] if c["task"] == "vtab_cifar"}
    assert means == {False: (1, 0.5), True: (1, 0.75)}
    assert any("altered" in warning for warning in content["warnings"])
    text = quickly("report", "--store", store).stdout
    assert text.count("altered data") == 1
    assert text.count("suite vtab (1 of 19 tasks: cifar)") == 2


def test_recipes_have_tables_of_their_own(tmp_path: Path) -> None:
    for lr, acc in [(1e-3, 0.5), (2e-3, 1.0)]:
        (spec,) = plan(["sweep=none", "task=digits", "adapter=linear", f"train.lr={lr}"]).runs
        Store(tmp_path).put(spec, make_row(spec, acc, recipe=recipe_hash(spec)), b"adapter")
    cells = [cell for cell in report_of(tmp_path)["rows"] if cell["task"] == "digits"]
    assert sorted((cell["n"], cell["mean"]) for cell in cells) == [(1, 0.5), (1, 1.0)]
    assert len({cell["recipe"] for cell in cells}) == 2
    text = quickly("report", "--store", tmp_path).stdout
    assert all(f"recipe pocket with lr={lr}\n" in text for lr in (0.001, 0.002))


def test_a_scale_that_was_chosen_does_not_split_a_row(tmp_path: Path) -> None:
    axes = ["sweep=none", "task=digits", "adapter=lora", "seed=0,1"]
    for spec, scale in zip(plan(axes).runs, (0.1, 10.0), strict=True):
        Store(tmp_path).put(spec, make_row(spec, 0.5, scale=scale), b"adapter")
    (line,) = report_of(tmp_path)["averages"]
    assert "scale" not in line


def rated(store: Path, *axes: str) -> list[dict]:
    """Runs of one recipe under a protocol that does not choose its rate, whatever that is."""
    for spec in plan(["sweep=none", "protocol=fixed", "scale=1", *axes]).runs:
        Store(store).put(spec, make_row(spec, spec.train.lr, recipe=recipe_hash(spec)), b"adapter")
    return report_of(store)["averages"]


def test_a_rate_that_was_tuned_does_not_split_a_row(tmp_path: Path) -> None:
    tables = "tuned.tables=[{adapter:lora,lrs:{digits:0.25,surfaces:0.5}}]"
    (line,) = rated(tmp_path, "task=digits,surfaces", "adapter=lora", tables)
    assert "lr" not in line
    assert report_of(tmp_path)["warnings"] == ["learning rates differ: 0.25 to 0.5"]


def test_rates_that_were_given_are_rows_of_one_table(tmp_path: Path) -> None:
    lines = rated(tmp_path, "task=digits", "adapter=lora,adaptformer", "bits=1", "train.lr=0.25,0.5")
    assert sorted((line["adapter"], line["lr"]) for line in lines) == [
        ("adaptformer", 0.25),
        ("adaptformer", 0.5),
        ("lora", 0.25),
        ("lora", 0.5),
    ]
    cells = [cell for cell in report_of(tmp_path)["rows"] if cell["n"]]
    assert all(cell["mean"] == cell["lr"] for cell in cells)
    assert len(cells) == 4


def test_a_table_of_the_users_own_data_needs_no_manifest(tmp_path: Path) -> None:
    (spec,) = plan(["sweep=none", "task=folder", "adapter=linear"]).runs
    for name, acc in [("birds", 0.5), ("fish", 1.0)]:
        sizes = {"train": 8, "val": 2, "test": 4}
        own = dataclasses.replace(spec.task, name=name, classes=3, splits=sizes, fingerprint=name)
        run = dataclasses.replace(spec, task=own)
        Store(tmp_path).put(run, make_row(run, acc), b"adapter")
    content = report_of(tmp_path)
    assert {cell["task"]: cell["mean"] for cell in content["rows"]} == {"birds": 0.5, "fish": 1.0}
    (line,) = content["averages"]
    assert line["tasks"] == "2/2"
    assert line["mean_of_tasks"]["mean"] == 0.75


def test_filters(made_up: Path) -> None:
    def rows(*filters: str) -> list[dict]:
        arguments = [argument for text in filters for argument in ("--filter", text)]
        done = quickly("report", "--store", made_up, "--format", "json", *arguments)
        assert done.returncode == 0, done.stderr
        return [cell for cell in json.loads(done.stdout)["rows"] if cell["n"]]

    assert {cell["adapter"] for cell in rows("adapter=lora")} == {"lora"}
    assert {(c["task"], c["n"]) for c in rows("adapter=lora", "task=digits", "seed=1")} == {("digits", 1)}
    assert {cell["bits"] for cell in rows("bits=1.0")} == {1}
    assert len(rows("git_dirty=false")) == 10  # as row.json writes it
    message = error_of(quickly("report", "--store", made_up, "--filter", "adaptor=lora"))
    assert "did you mean 'adapter'" in message
    message = error_of(quickly("report", "--store", made_up, "--filter", "bits=7"))
    assert "bits is one of: 1, 32" in message
    assert "COLUMN=VALUE" in error_of(quickly("report", "--store", made_up, "--filter", "bits"))


def test_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for store, what in [("nowhere", "no such directory"), ("empty", "holds no finished run")]:
        message = error_of(quickly("report", "--store", store, cwd=tmp_path))
        assert f"store {store}" in message
        assert what in message
        assert "petl-bench sweep" in message


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spec = plan(["sweep=none", "adapter=linear"]).runs[0]
    row = make_row(spec, 0.5)
    store.put(spec, row, b"adapter")
    (tmp_path / row.run_id / ROW).write_text("{")
    message = error_of(quickly("report", "--store", tmp_path))
    assert str(tmp_path / row.run_id / ROW) in message
