"""Settings that tell tables and rows apart, warnings, filters, and stores without results."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path

import pytest

from petl_bench.config import plan
from petl_bench.run.metadata import recipe_hash
from petl_bench.store import ROW, Store
from tests.conftest import error_of, quickly
from tests.made import make_row
from tests.test_report import made_up, summary  # noqa: F401 - fixtures


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
    rated(tmp_path, "task=digits", "adapter=linear,adaptformer", "train.lr=0.125")
    said = "learning rates differ: 0.125 to 0.5 (adaptformer, linear: 0.125; lora: 0.25 to 0.5)"
    assert [line for line in report_of(tmp_path)["warnings"] if "rates differ" in line] == [said]


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


def test_settings_that_a_method_does_not_use_are_blank(tmp_path: Path) -> None:
    """(IA)3 has neither hidden units nor float parameters, LN-tune has float parameters alone."""
    store = Store(tmp_path)
    for overrides in (["adapter=ia3", "bits=1"], ["adapter=ln_tune", "float_bits=1,8"]):
        for spec in plan(["sweep=none", "task=digits", "scale=1", *overrides]).runs:
            store.put(spec, make_row(spec, 0.5), b"adapter")
    lines = quickly("report", "--store", tmp_path, "--format", "markdown").stdout.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    names = table[0].index("hidden"), table[0].index("bits"), table[0].index("float_bits")
    cells = [[row[0], *(row[column] for column in names)] for row in table[2:5]]
    assert cells == [["ia3", "-", "1", "-"], ["ln_tune", "-", "-", "1"], ["ln_tune", "-", "-", "8"]]


def test_the_way_of_compressing_is_shown_for_methods_of_floats_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for overrides in (["compress=none,ptq", "float_bits=1"], ["compress=compeft", "kept=0.2"]):
        for spec in plan(["sweep=none", "task=digits", "adapter=bitfit", *overrides]).runs:
            store.put(spec, make_row(spec, 0.5, kept=spec.kept), b"adapter")
    lines = quickly("report", "--store", tmp_path, "--format", "markdown").stdout.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    names = [table[0].index(name) for name in ("float_bits", "compress", "kept")]
    cells = {tuple(row[column] for column in names) for row in table[2:5]}
    assert cells == {("1", "none", "-"), ("1", "ptq", "-"), ("2", "compeft", "0.2")}
