"""From a run back to its command: `show`, `rerun`, and the names of recipes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from petl_bench.config import plan
from petl_bench.config.command import differences, literal, overrides_of
from petl_bench.config.recipes import recipe_name
from petl_bench.data import manifests
from petl_bench.report import build
from petl_bench.report.labels import title
from petl_bench.run.identity import resolve_tasks
from petl_bench.run.metadata import recipe_hash
from petl_bench.store import ERROR, ROW, SPEC, Store
from petl_bench.store.agreement import with_digests
from petl_bench.store.files import to_json
from petl_bench.types import Cache, RunSpec, row_to_dict, run_id, spec_from_dict, spec_to_dict
from tests import trees
from tests.conftest import error_of, json_lines, pick, quickly, rows_of
from tests.made import WEIGHTS, make_row
from tests.test_frozen import SPECS

KINDS = {name: overrides for name, overrides in SPECS.items() if not name.startswith("sweep ")} | {
    "given warm-up": ["sweep=none", "scale=1", "train=vtab", "train.epochs=8", "train.warmup_epochs=2"],
    "lag without warm-up": ["sweep=none", "scale=1", "train=vtab", "train.epochs=8", "train.schedule_lag=0"],
    "one rate": ["sweep=none", "protocol.lrs=[0.02]"],
    "one scale": ["sweep=none", "protocol.scales=[3]", "adapter=lora"],
    "searched linear": ["sweep=none", "adapter=linear", "protocol.lrs=[0.1,0.01]", "protocol.rungs=[1]"],
    "fixed with the recipe's own rate": [
        *("sweep=none", "protocol=fixed", "task=digits", "adapter=linear", "train=pocket"),
    ],
    "fixed with a scale by hand": ["sweep=none", "protocol=fixed", "scale=0.7"],
    "options of a backbone": [
        *("sweep=none", "scale=1", "backbone=pocket", "backbone.options.depth=2"),
        "backbone.options.act_layer=relu",
    ],
    "options and a label": [
        *("sweep=none", "scale=1", "backbone=timm", "backbone.label=mine", "backbone.image_size=64"),
        "backbone.options={window_size: [4, 4], qk_norm: true, init_values: 1e-5, act_layer: '1', a: null}",
    ],
    "few-shot with a search": ["sweep=none", "task=fgvc_pets", "shots=16", "data.root=/x", "bits=8"],
    "the default sweep": ["task=surfaces", "adapter=lora", "bits=4"],
}
"""Overrides of one run each."""


def again(spec: RunSpec) -> RunSpec:
    """The run that the command of a run plans; its data are not looked for."""
    (found,) = plan(overrides_of(spec)).runs
    return found


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.sampled(12)
def test_the_command_of_a_run_plans_this_run(name: str) -> None:
    (spec,) = plan(KINDS[name]).runs
    stored = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert run_id(again(stored), WEIGHTS) == run_id(spec, WEIGHTS)
    assert not differences(overrides_of(stored), spec)


@st.composite
def settings(draw: st.DrawFn) -> list[str]:
    """Overrides of any run of the bundled suite."""
    fields = {
        "task": st.sampled_from(["digits", "sprites_loc"]),
        "adapter": st.sampled_from(["linear", "lora", "adaptformer", "full", "vpt_deep", "ssf"]),
        "bits": st.sampled_from([1, 3, 32]),
        "hidden": st.sampled_from([1, 16]),
        "head": st.sampled_from(["linear", "binary"]),
        "quantizer": st.sampled_from(["l1_median", "minmax"]),
        "packing": st.sampled_from(["coded", "raw"]),
        "protocol": st.sampled_from(["sealed", "peek"]),
        "scale": st.sampled_from([1, 0.3]),
        "seed": st.integers(0, 2**62),
        "train": st.sampled_from(["vtab", "pocket", "fgvc_noah"]),
        "train.lr": st.sampled_from([1e-5, 0.123456789012345]),
        "train.epochs": st.sampled_from([1, 7]),
    }
    keys = draw(st.lists(st.sampled_from(list(fields)), unique=True, max_size=6))
    return ["sweep=none", *(f"{key}={draw(fields[key])}" for key in keys)] + (
        [] if "scale" in keys or "protocol" not in keys else ["scale=2"]
    )


@given(settings())
@example(["sweep=none", "train=vtab", "train.epochs=1"])
@pytest.mark.skipif(not os.environ.get("PETL_BENCH_LONG"), reason="takes long: `make test-long` runs it")
def test_the_command_of_any_settings_plans_this_run(overrides: list[str]) -> None:
    (spec,) = plan(overrides).runs
    assert run_id(again(spec), WEIGHTS) == run_id(spec, WEIGHTS)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abe019'\"\\${}[](),:=~+-_./ %#é\n", max_size=12),
    lambda held: (
        st.lists(held, max_size=3)
        | st.dictionaries(st.from_regex("[a-z_]{1,5}", fullmatch=True), held, max_size=2)
    ),
    max_leaves=4,
)


@given(VALUES)
@example("it's \\${a}\\")
@example("null")
@example("1e5")
def test_literals_are_read_as_the_same_values(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={literal(value)}")
    config = OmegaConf.create({})
    OmegaConf.update(config, "key", override.value())
    read = OmegaConf.to_container(config, resolve=True)["key"]
    assert (read, repr(read)) == (value, repr(value))


@pytest.mark.parametrize("name", ["images", "it's ${a}, [b]=c"])
def test_the_command_finds_folders_of_any_name(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    for label, folder in enumerate(["cat", "dog"]):
        for number in range(8):
            trees.save(trees.picture(label, number, 8), root / folder / f"{number}.png")
    escaped = f"data.root={literal(str(root))}"
    own = ["task=tree", escaped, "scale=1", "data.images=10", "split_seed=3", "train.batch_size=2"]
    cache = Cache(str(tmp_path / "cache"))
    (spec,) = resolve_tasks(plan(own).runs, cache)
    (found,) = resolve_tasks([again(spec)], cache)
    assert spec.task.place["root"] == str(root)
    assert found == spec


def test_the_command_names_the_file_of_sizes_that_were_overridden(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("vtab_dtd: {splits: {test: 40}}\n")
    (spec,) = plan(["task=vtab_dtd", f"data.override={sizes}", "sweep=none"]).runs
    assert again(spec) == spec
    older = replace(spec, task=replace(spec.task, place={"root": "data"}))
    assert differences(overrides_of(older), older) == ["task.override"]


def test_settings_are_stated_whole_where_files_of_conf_have_changed() -> None:
    """Such as a run whose backbone's file is no longer there."""
    (spec,) = plan(["sweep=none", "scale=1", "train=own", "backbone=vit_b16_clip"]).runs
    lost = replace(spec, backbone=replace(spec.backbone, label="lost"))
    assert "backbone=timm" in overrides_of(lost)
    assert run_id(again(lost), WEIGHTS) == run_id(spec, WEIGHTS)


# show


def test_show_names_a_command_that_makes_each_run(finished_store: Path, tmp_path: Path) -> None:
    for row in rows_of(finished_store)[::5]:
        (found,) = json_lines(quickly("show", row["run_id"][:9], "--store", finished_store, "--json").stdout)
        assert (found["run_id"], found["state"], found["differences"]) == (row["run_id"], "done", [])
        assert found["results"]["acc"] == row["acc"]
        assert found["provenance"]["torch_version"] == row["torch_version"]
        assert found["files"][ROW] == (finished_store / row["run_id"] / ROW).stat().st_size
        program, verb, *overrides = shlex.split(found["command"])
        assert (program, verb, overrides) == ("petl-bench", "sweep", found["overrides"])
        planned = quickly(verb, *overrides, "--dry-run", "--json", "--store", tmp_path / "none")
        assert [line["run_id"] for line in json_lines(planned.stdout)] == [row["run_id"]]


def test_show_says_all_about_a_run(finished_store: Path) -> None:
    row = pick(finished_store, task="digits", adapter="lora", bits=1)
    text = quickly("show", finished_store / row["run_id"], "--classes").stdout
    for said in (row["run_id"], row["data_fingerprint"], row["device"], row["recipe_name"], "adapter.name"):
        assert said in text
    assert f"petl-bench rerun {row['run_id']} --store {finished_store}" in text
    right = [int(line.split()[2]) for line in text.splitlines() if line.endswith("right")]
    wrong = [
        int(line.split()[4]) for line in text.splitlines() if line.startswith("  class ") and " as " in line
    ]
    assert (sum(right), sum(wrong)) == (round(row["acc"] * 797), 797 - round(row["acc"] * 797))


def test_show_of_runs_that_failed_are_damaged_or_are_none(store_copy: Path) -> None:
    failed, damaged, other = (row["run_id"] for row in rows_of(store_copy)[:3])
    (store_copy / failed / ROW).unlink()
    (store_copy / failed / ERROR).write_text(json.dumps({"message": "went wrong", "cause": "error"}))
    (found,) = json_lines(quickly("show", failed, "--store", store_copy, "--json").stdout)
    assert (found["state"], found["error"], found["results"]) == ("failed", "went wrong", {})
    assert found["overrides"]
    (store_copy / damaged / ROW).write_text("{")
    assert "damaged" in error_of(quickly("show", damaged, "--store", store_copy))
    assert "is no finished or failed run" in error_of(quickly("show", "zzz", "--store", store_copy))
    held, row = json.loads((store_copy / other / SPEC).read_text()), Store(store_copy).row(other)
    held["adapter"]["settings"]["flavour"] = 1
    spec = spec_from_dict(held)
    (store_copy / other / SPEC).write_bytes(to_json(spec_to_dict(spec)))
    (store_copy / other / ROW).write_text(json.dumps(row_to_dict(with_digests(row, spec))))
    done = quickly("show", other, "--store", store_copy, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json_lines(done.stdout)
    assert "cannot express the run" in found["differences"][0]
    assert "cannot be repeated" in error_of(quickly("rerun", other, "--store", store_copy))


# rerun


def test_rerun_repeats_a_run_elsewhere_and_says_whether_it_agrees(store_copy: Path) -> None:
    row = pick(store_copy, task="digits", adapter="linear")
    run = store_copy / row["run_id"]
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    command = ("rerun", row["run_id"][:8], "launcher=local", "--store", store_copy)
    (found,) = json_lines(quickly(*command, "--json").stdout)
    assert (found["acc"], found["agrees"], found["predictions_differ"]) == (row["acc"], True, 0)
    assert found["provenance"] == {}
    assert (found["store"], found["same_file"]) == (f"{store_copy}-rerun", True)
    assert {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert f"--into {found['store']}: holds run" in error_of(quickly(*command, "--into", found["store"]))
    assert "--into" in error_of(quickly(*command, "--into", store_copy))
    assert "is not run" not in quickly("show", row["run_id"], "--store", found["store"]).stdout
    assert "a setting was given that decides numbers" in error_of(quickly(*command, "seed=1"))
    store = Store(store_copy)
    other = replace(store.row(row["run_id"]), acc=1 / row["n_test"], predictions="0" * 16)
    wrong = row_to_dict(with_digests(other, store.spec(row["run_id"])))
    (run / ROW).write_text(json.dumps(wrong))
    done = quickly(*command)
    assert done.returncode == 1
    assert f"again in {store_copy}-rerun.2" in done.stdout
    assert f"DISAGREES with row {wrong['acc']:.4f}" in done.stdout
    assert json.loads((run / ROW).read_text()) == wrong


def test_rerun_of_a_failed_run_is_in_its_own_store(store_copy: Path) -> None:
    row = pick(store_copy, task="digits", adapter="linear")
    run = store_copy / row["run_id"]
    (run / ROW).unlink()
    (run / ERROR).write_text(json.dumps({"message": "went wrong", "cause": "error"}))
    assert quickly("rerun", row["run_id"], "launcher=local", "--store", store_copy).returncode == 0
    assert pick(store_copy, run_id=row["run_id"])["acc"] == row["acc"]
    assert not Path(f"{store_copy}-rerun").exists()


# Names of recipes


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["task=digits"], "pocket"),
        (["task=digits", "train=own"], "vtab"),  # the pixels of `pocket` are not normalized
        (["task=digits", "train.epochs=3"], "pocket"),  # the warm-up keeps its share
        (["task=digits", "train.epochs=9", "train.warmup_epochs=1"], "pocket with warmup_epochs=1"),
        (["task=digits", "train.lr=0.01"], "pocket with lr=0.01"),
        (["task=digits", "train.lr=0.01", "protocol=fixed"], "pocket"),  # has its own column
        (["task=digits", "protocol.lrs=[0.01,0.1]"], "pocket with lrs=[0.01,0.1]"),
        (["task=digits", "train=fgvc"], "fgvc"),
        (["task=digits", "train=fgvc", "train.augment.erasing=0.25"], "fgvc with augment.erasing=0.25"),
        (["task=tree"], "own"),
        (["task=vtab_dtd", "train.batch_size=32"], "vtab with batch_size=32"),
        (["task=digits", "protocol=peek", "protocol.every=2"], "pocket with every=2"),
    ],
)
def test_recipes_are_named_with_what_differs(overrides: list[str], name: str) -> None:
    (spec,) = plan(["sweep=none", "scale=1", *overrides]).runs
    assert recipe_name(spec) == name


def test_titles_name_recipes(tmp_path: Path) -> None:
    """Old rows have no names: those of their specs; a hash where a spec is lost."""
    rows = []
    for number, changes in enumerate([[], ["train.batch_size=16"], ["train.weight_decay=0.1"]]):
        (spec,) = plan(["sweep=none", "scale=1", *changes]).runs
        name = recipe_name(spec) if number < 2 else ""
        rows.append(make_row(spec, 0.5, recipe=recipe_hash(spec), recipe_name=name))
        Store(tmp_path).put(spec, rows[-1], b"adapter")

    def titles() -> list[str]:
        tables = build(rows, manifests(), 0.01, tmp_path).tables
        return [title(table, tables) for table in tables]

    names = ("recipe pocket", "recipe pocket with batch_size=16", "recipe pocket with weight_decay=0.1")
    assert all(any(text.endswith(name) for text in titles()) for name in names)
    shutil.rmtree(tmp_path / rows[2].run_id)
    assert any(text.endswith(f"recipe {rows[2].recipe}") for text in titles())
    only = build(rows[1:2], manifests(), 0.01, tmp_path).tables
    assert title(only[0], only).endswith("recipe pocket with batch_size=16")
