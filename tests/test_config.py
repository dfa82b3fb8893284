"""Overrides -> plan. The expected plans are counted by hand from conf/ and the guide's command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.config import (
    CONF_DIR,
    LauncherSpec,
    Plan,
    files,
    group_config,
    manifests,
    options,
    overridden,
    plan,
    plan_task,
)
from petl_bench.errors import UserError
from petl_bench.types import (
    NORMALIZATIONS,
    RESIZES,
    AdapterSpec,
    AugmentSpec,
    BackboneSpec,
    Cache,
    Manifest,
    ProtocolSpec,
    RunSpec,
    TaskSpec,
    TrainSpec,
    run_id,
    spec_from_dict,
    spec_to_dict,
)
from tests.conftest import WEIGHTS, json_lines, petl

ONE = ["sweep=none", "task=digits", "adapter=adaptformer"]
"""One run, at the base values of conf/config.yaml."""
TASKS = ["digits", "surfaces", "sprites_loc", "sprites_ori", "shapes_count"]
GRID = [0.01, 0.1, 1.0, 10.0, 100.0]
"""Scales that the paper searches (method.md)."""


def ids(found: Plan) -> list[str]:
    return [run_id(spec, WEIGHTS) for spec in found.runs]


def one(*overrides: str) -> RunSpec:
    """The run of ONE with these overrides, which replace those of ONE for the same key."""
    (spec,) = plan(list({text.partition("=")[0]: text for text in [*ONE, *overrides]}.values())).runs
    return spec


def identity(*overrides: str) -> str:
    return run_id(one(*overrides), WEIGHTS)


@pytest.fixture(scope="module")
def default() -> Plan:
    return plan([])


def test_the_default_plan_is_the_embedded_suite(default: Plan) -> None:
    # 5 tasks x (linear once, for it has no bits, + 2 adapters x 3 widths) = 35
    widths = yaml.safe_load((CONF_DIR / "sweep" / "demo.yaml").read_text())["hydra"]["sweeper"]["params"]
    bits = [int(text) for text in str(widths["bits"]).split(",")]
    assert len(bits) == 3
    expected = [(t, "linear", 32) for t in TASKS]
    expected += [(t, a, b) for t in TASKS for a in ("adaptformer", "lora") for b in bits]
    found = [(r.task.name, r.adapter.name, r.bits) for r in default.runs]
    assert len(found) == 35
    assert sorted(found) == sorted(expected)
    assert len(set(ids(default))) == 35
    assert all(r.protocol == ProtocolSpec("fixed") for r in default.runs)


def test_the_order_is_that_of_the_axes(default: Plan) -> None:
    # the first axis varies slowest, and its values come as they are written
    assert list(dict.fromkeys(r.task.name for r in default.runs)) == TASKS
    assert [r.adapter.name for r in default.runs[:7]] == ["linear", *["adaptformer"] * 3, *["lora"] * 3]
    assert ids(plan([])) == ids(default)


def test_another_process_plans_the_same(tmp_path: Path) -> None:
    overrides = ["task=digits,surfaces", "bits=1,32", "seed=0,1"]
    seen = []
    for seed in ("1", "2"):
        done = petl("sweep", "--dry-run", "--json", *overrides, cwd=tmp_path, PYTHONHASHSEED=seed)
        seen.append([found["run_id"] for found in json_lines(done.stdout)])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 20  # 2 tasks x (1 + 2 x 2) x 2 seeds


def test_an_override_replaces_the_axis_of_the_sweep() -> None:
    found = plan(["bits=1,2", "task=digits"]).runs
    assert Counter((r.adapter.name, r.bits) for r in found) == Counter(
        [("linear", 32), ("adaptformer", 1), ("adaptformer", 2), ("lora", 1), ("lora", 2)]
    )


def test_glob_finds_tasks_by_name() -> None:
    found = plan(["sweep=none", "task=glob(sprites_*)"]).runs
    assert [r.task.name for r in found] == ["sprites_loc", "sprites_ori"]
    found = plan(["sweep=none", "task=glob(*)"]).runs
    assert [r.task.name for r in found] == options("task")
    assert len(found) == 5 + 19 + 5 + 2  # bundled, VTAB-1K, few-shot FGVC, the user's own in two layouts


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("seed=range(0,3)", [0, 1, 2]),
        ("seed=2,5", [2, 5]),
        ("seed=7", [7]),
        ("seed=3,3", [3]),
        ("bits=1", [0]),
    ],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    found = plan([*ONE, text]).runs
    assert [r.seed for r in found] == seeds
    assert len({run_id(r, WEIGHTS) for r in found}) == len(seeds)
    assert len({dataclasses.replace(r, seed=0).seed for r in found}) == 1


def test_seeds_differ_in_nothing_else() -> None:
    first, second = plan([*ONE, "seed=0,1"]).runs
    assert dataclasses.replace(second, seed=0) == first


def test_axes_multiply() -> None:
    found = plan([*ONE, "hidden=8,16", "bits=1,2,4", "seed=0,1"]).runs
    assert len({(r.hidden, r.bits, r.seed) for r in found}) == len(found) == 12  # 2 x 3 x 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["train.lr=1"], ["train.lr=1.0"]),
        (["scale=2"], ["scale=2.0"]),
        (["adapter.dropout=0"], ["adapter.dropout=0.0"]),
        (["launcher=serial"], ["launcher=local"]),
        (["launcher.workers=1"], ["launcher.workers=2"]),
        (["launcher.device=cpu"], ["launcher.threads=2"]),
        (["launcher.loaders=2"], ["launcher.loaders=0"]),
        (["data.cache=a"], ["data.cache_gb=1"]),
        (["task=vtab_cifar", "data.root=a"], ["task=vtab_cifar", "data.root=b"]),
        (["data.images=10", "shots=4", "split_seed=2"], []),  # digits are neither drawn nor few-shot
        (["task=tree", "shots=4"], ["task=tree"]),
        (["task=vtab_cifar", "shots=4", "split_seed=1"], ["task=vtab_cifar"]),
        (["scale=2", "protocol.scales=[1.0,3.0]"], ["scale=2"]),  # nothing is left to choose
        (["protocol.scales=[2]"], ["scale=2.0"]),
        (["adapter=linear", "protocol.scales=[1.0,3.0]"], ["adapter=linear"]),
        (["protocol.scales=[1,2]", "protocol.lrs=[1]"], ["protocol.scales=[1.0,2.0]", "protocol.lrs=[1.0]"]),
        (["train.normalization=backbone"], ["train.normalization=none"]),
        (["bits=32", "quantizer=minmax"], ["bits=32", "quantizer=l1_median"]),
        (["hidden=16", "seed=4"], ["seed=4", "hidden=16"]),
    ],
)
def test_same_run(first: list[str], second: list[str]) -> None:
    assert identity(*first) == identity(*second)


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "bits=2",
        "hidden=7",
        "scale=0.123",
        "head=binary",
        "quantizer=minmax",
        "train.lr=0.123",
        "train.epochs=77",
        "train.batch_size=8",
        "train.normalization=half",
        "adapter.dropout=0.3",
        "adapter=lora",
        "task=surfaces",
        "backbone.image_size=64",
        "protocol=fixed",
        "protocol=peek",
        "protocol.scales=[1.0,2.0]",
        "protocol.lrs=[0.1,0.2]",
        "train.augment.crop=true",
        "train.augment.mixup=0.8",
    ],
)
def test_another_run(change: str) -> None:
    assert identity(change) != identity()


@pytest.mark.parametrize(
    "change",
    [
        ("task=fgvc_pets", "shots=2"),
        ("task=fgvc_pets", "split_seed=1"),
        ("task=tree", "split_seed=1"),
        ("task=tree", "data.images=500"),
        ("task=fgvc_pets", "train=fgvc_noah"),
        ("protocol=peek", "protocol.every=5"),
    ],
)
def test_another_run_of_one_task_or_protocol(change: tuple[str, str]) -> None:
    assert identity(*change) != identity(change[0])


def test_the_launcher_is_planned_beside_the_runs() -> None:
    assert plan([*ONE, "launcher=serial"]).launcher.name == "serial"
    chosen = plan([*ONE, "launcher.workers=3", "launcher.threads=2", "launcher.device=cpu"]).launcher
    assert chosen == LauncherSpec("local", "cpu", 3, 2, 0)
    assert plan([*ONE, "launcher.loaders=4"]).launcher.loaders == 4


def test_the_cache_is_planned_beside_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PETL_BENCH_CACHE", raising=False)
    assert plan(ONE).cache == Cache("", 50_000_000_000)
    assert plan([*ONE, "data.cache=/somewhere", "data.cache_gb=0.5"]).cache == Cache(
        "/somewhere", 500_000_000
    )


def test_the_root_is_that_of_the_override_and_of_no_bundled_task() -> None:
    assert one("task=vtab_cifar", "data.root=/somewhere").task.place == {"root": "/somewhere"}
    assert one("data.root=/somewhere").task.place == {}


def test_the_environment_names_root_and_cache(tmp_path: Path) -> None:
    # in a new process, whose configuration is read for the first time
    program = "from petl_bench.config import plan; found = plan(['sweep=none', 'task=vtab_cifar']); "
    program += "print(found.runs[0].task.place['root'], found.cache.directory)"
    where = {"PETL_BENCH_DATA": "/some/data", "PETL_BENCH_CACHE": "/some/cache"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | where, capture_output=True, text=True, check=True)
    assert done.stdout == "/some/data /some/cache\n"


@pytest.mark.parametrize("protocol", ["fixed", "peek"])
@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
@pytest.mark.parametrize("task", TASKS)
def test_the_scale_is_the_tuned_one(adapter: str, task: str, protocol: str) -> None:
    tables = yaml.safe_load((CONF_DIR / "tuned" / "pocket.yaml").read_text())["tables"]
    (tuned,) = [table["scales"] for table in tables if table["adapter"] == adapter]
    assert one(f"adapter={adapter}", f"task={task}", f"protocol={protocol}").scale == tuned[task]


def test_the_tuned_scale_is_that_of_the_first_table_that_fits() -> None:
    tables = [
        "{adapter:adaptformer,head:binary,hidden:8,scales:{digits:1.0,surfaces:2.0}}",
        "{adapter:adaptformer,hidden:8,scales:{digits:3.0}}",
        "{adapter:adaptformer,scales:{digits:4.0,surfaces:5.0}}",
        "{adapter:adaptformer,scales:{digits:6.0,sprites_loc:7.0}}",
    ]

    def scale(*overrides: str) -> float | None:
        return one("protocol=fixed", f"tuned.tables=[{','.join(tables)}]", *overrides).scale

    assert scale("hidden=8", "head=binary") == 1.0
    assert scale("hidden=8", "head=linear") == 3.0
    assert scale("hidden=9", "head=binary") == 4.0
    assert scale("hidden=8", "head=binary", "task=surfaces") == 2.0
    assert scale("hidden=8", "head=linear", "task=surfaces") == 5.0  # the second fits, but has no such task
    assert scale("task=sprites_loc") == 7.0
    with pytest.raises(UserError, match=r"adapter=lora head=linear hidden=16 task=digits.*scale=1\.0"):
        scale("adapter=lora")


def test_the_scales_of_vtab_are_those_of_the_released_checkpoints() -> None:
    golden = Path(os.environ.get("PETL_BENCH_GOLDEN", Path(__file__).parents[2] / "shared/golden"))
    table = golden / "petl-vit-checkpoints.csv"
    if not table.is_file():
        pytest.skip(f"no table of the authors' checkpoints in {golden}")
    with table.open() as file:
        expected = {
            (
                row["method"].removesuffix("-bihead"),
                "binary" if row["method"].endswith("-bihead") else "linear",
                int(row["dim"]),
                f"vtab_{row['task']}",
            ): float(row["scale"])
            for row in csv.DictReader(file)
        }
    axes = ["task=glob(vtab_*)", "adapter=adaptformer,lora", "head=linear,binary", "hidden=1,32"]
    runs = plan(["sweep=none", "protocol=fixed", *axes]).runs
    assert len(expected) == 152  # method.md: 19 tasks, 4 methods, 2 widths
    assert {(r.adapter.name, r.head, r.hidden, r.task.name): r.scale for r in runs} == expected


def test_a_sealed_run_leaves_the_scale_to_val() -> None:
    spec = one()  # what conf/config.yaml says of a single run
    assert spec.scale is None
    assert spec.protocol == ProtocolSpec("sealed", scales=GRID)
    assert [r.scale for r in spec.candidates] == GRID
    assert {dataclasses.replace(r, scale=None).train.lr for r in spec.candidates} == {spec.train.lr}
    spec = one("protocol.scales=[3,0.5]", "protocol.lrs=[0.02,0.01]")
    assert [(r.scale, r.train.lr) for r in spec.candidates] == [
        (0.5, 0.01),
        (0.5, 0.02),
        (3.0, 0.01),
        (3.0, 0.02),
    ]
    assert all(dataclasses.replace(r, scale=None, train=spec.train) == spec for r in spec.candidates)


@pytest.mark.parametrize("protocol", ["sealed", "fixed", "peek"])
def test_an_explicit_scale_wins_over_tables_and_search(protocol: str) -> None:
    for overrides in [(), ("adapter=lora", "task=surfaces"), ("task=vtab_cifar",)]:
        spec = one("scale=0.123", f"protocol={protocol}", *overrides)
        assert (spec.scale, spec.protocol.name, spec.protocol.scales) == (0.123, protocol, [])
        assert spec.candidates == [spec]


def test_settings_of_a_protocol_go_with_that_protocol() -> None:
    assert one("protocol=peek").protocol == ProtocolSpec("peek", every=10)  # method.md: every 10 epochs
    for protocol, setting in [("fixed", "scales=[1.0]"), ("peek", "lrs=[1.0]"), ("sealed", "every=3")]:
        with pytest.raises(
            UserError, match=rf"protocol\.{setting[:3]}.* is no setting of protocol={protocol}"
        ):
            one(f"protocol={protocol}", f"protocol.{setting}")


# What a suite brings with it


def recipe(name: str) -> TrainSpec:
    """conf/train/NAME.yaml, read without petl_bench."""
    values = yaml.safe_load((CONF_DIR / "train" / f"{name}.yaml").read_text())
    values |= {"lr": float(values["lr"]), "weight_decay": float(values["weight_decay"])}
    values |= {"warmup_lr": float(values["warmup_lr"]), "min_lr": float(values["min_lr"])}
    return TrainSpec(**values | {"augment": AugmentSpec(**values["augment"])})


OF_SUITES = {
    "digits": "pocket",
    "vtab_cifar": "vtab",
    "fgvc_pets": "fgvc",
    "folder": "vtab",
    "tree": "vtab",
}
"""Task -> the recipe it trains with unless told otherwise."""


def test_the_recipe_is_that_of_the_tasks_suite() -> None:
    found = plan(["sweep=none", f"task={','.join(OF_SUITES)}"]).runs
    assert {r.task.name: r.train for r in found} == {task: recipe(name) for task, name in OF_SUITES.items()}
    assert len({r.train.epochs for r in found}) > 1  # they do differ


def test_the_recipes_of_the_benchmarks_are_the_published_ones() -> None:
    # method.md: 100 epochs, batch 64, lr 1e-3 and 5e-3, weight decay 1e-4, drop-path 0.1; few-shot sets with
    # random resized crops, colour jitter 0.4, RandAugment; NOAH also with erasing, mixup, cutmix, smoothing
    vtab, fgvc, noah = recipe("vtab"), recipe("fgvc"), recipe("fgvc_noah")
    for found, lr in [(vtab, 1e-3), (fgvc, 5e-3), (noah, 5e-3)]:
        assert (found.epochs, found.batch_size, found.lr, found.weight_decay) == (100, 64, lr, 1e-4)
        assert (found.warmup_epochs, found.warmup_lr, found.min_lr) == (10, 1e-6, 1e-5)
        assert (found.schedule_lag, found.drop_path) == (1, 0.1)
    assert (vtab.normalization, fgvc.normalization, noah.normalization) == ("none", "imagenet", "imagenet")
    assert vtab.augment == AugmentSpec()
    assert fgvc.augment == AugmentSpec(crop=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1")
    more = {"erasing": 0.25, "mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1}
    assert noah.augment == dataclasses.replace(fgvc.augment, **more)


def test_a_chosen_recipe_wins_over_that_of_the_suite() -> None:
    found = plan(["sweep=none", "train=pocket,fgvc_noah", f"task={','.join(OF_SUITES)}"]).runs
    assert Counter((r.task.name, r.train.epochs, r.train.batch_size) for r in found) == Counter(
        (task, chosen.epochs, chosen.batch_size)
        for task in OF_SUITES
        for chosen in (recipe("pocket"), recipe("fgvc_noah"))
    )
    for task, name in OF_SUITES.items():  # a single setting keeps the rest of the suite's recipe
        expected = dataclasses.replace(recipe(name), epochs=3)
        assert one(f"task={task}", "train.epochs=3").train == expected


def test_tuned_scales_are_those_of_the_tasks_suite() -> None:
    found = plan(["sweep=none", "task=digits,vtab_cifar", "hidden=32", "protocol=fixed"]).runs
    assert [r.scale for r in found] == [10.0, 0.1]  # conf/tuned/pocket.yaml and vtab.yaml
    for task in ("fgvc_pets", "folder", "tree"):  # nobody has published any
        with pytest.raises(UserError, match=rf"no scale for .*task={task}: .*protocol=sealed"):
            one(f"task={task}", "protocol=fixed")
    with pytest.raises(UserError, match=r"no scale for .*task=digits"):
        one("protocol=fixed", "tuned=none")


@pytest.mark.parametrize("backbone", options("backbone"))
def test_a_recipe_may_take_the_normalization_of_the_backbone(backbone: str) -> None:
    own = group_config("backbone", backbone).get("normalization", "none")
    spec = one(f"backbone={backbone}", "train.normalization=backbone")
    assert spec.train.normalization == own  # a row says what it was, not where it came from
    assert spec == one(f"backbone={backbone}", f"train.normalization={own}")
    assert one(f"backbone={backbone}").train.normalization == "none"


SWEEPS = [
    # 19 tasks x (linear + 2 adapters x 2 widths) x 3 seeds
    ("vtab", 285, "sealed", 19),
    # 5 sets x 5 shots x 3 splits x (linear + 2 adapters x 2 widths)
    ("fgvc", 375, "sealed", 5),
    # 19 tasks x 2 adapters x 2 heads x 5 widths x 3 seeds
    ("paper", 1140, "fixed", 19),
    # 5 tasks x (linear + 2 adapters x 2 widths) x 3 seeds
    ("pocket", 75, "fixed", 5),
]


@pytest.mark.parametrize(("sweep", "count", "protocol", "tasks"), SWEEPS, ids=[s[0] for s in SWEEPS])
def test_the_sweeps_of_the_benchmarks(sweep: str, count: int, protocol: str, tasks: int) -> None:
    found = plan([f"sweep={sweep}", "backbone=pocket"]).runs
    assert len(found) == len({run_id(r, WEIGHTS) for r in found}) == count
    assert {r.protocol.name for r in found} == {protocol}
    assert len({r.task.name for r in found}) == tasks
    assert {r.task.suite for r in found} == {"vtab" if sweep == "paper" else sweep}
    assert {r.train.epochs for r in found} == {100}
    left_to_val = [r for r in found if r.scale is None]
    assert left_to_val == [r for r in found if r.protocol.name == "sealed" and r.adapter.name != "linear"]
    assert all(r.protocol.scales == GRID for r in left_to_val)
    backbone = group_config("sweep", sweep)["hydra"]["sweeper"]["params"].get("backbone", "pocket")
    assert backbone == ("pocket" if sweep == "pocket" else "vit_b16_in21k")  # the published weights


def test_few_shot_axes_multiply() -> None:
    found = plan(["sweep=none", "task=fgvc_pets,fgvc_cars", "shots=1,16", "split_seed=0,2"]).runs
    assert [(r.task.name, r.task.shots, r.task.split_seed) for r in found] == [
        (task, shots, seed) for task in ("fgvc_pets", "fgvc_cars") for shots in (1, 16) for seed in (0, 2)
    ]
    assert len(plan(["sweep=none", "task=digits", "shots=1,16", "split_seed=0,2"]).runs) == 1


@pytest.mark.parametrize(
    ("override", "known"),
    [
        ("shots=3", "shots=1,2,4,8,16"),
        ("shots=0", "shots=1,2,4,8,16"),
        ("split_seed=3", "split_seed=0,1,2"),
        ("split_seed=-1", "split_seed=0,1,2"),
    ],
)
def test_few_shot_lists_that_nobody_drew_are_refused(override: str, known: str) -> None:
    with pytest.raises(UserError, match=rf"{override}: fgvc_food101 has lists for {known}"):
        plan(["sweep=none", "task=fgvc_food101", override])


# Overridden facts


def test_sizes_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "sizes.yaml"
    sizes = {"vtab_cifar": {"splits": {"test": 40, "train": 8}}, "fgvc_pets": {"splits": {"val": 5}}}
    file.write_text(yaml.safe_dump(sizes))
    tasks = "task=vtab_cifar,fgvc_pets,vtab_dtd,digits"
    found = {r.task.name: r.task for r in plan(["sweep=none", tasks, f"data.override={file}"]).runs}
    cifar = found["vtab_cifar"]
    assert (cifar.splits, cifar.override) == (
        {"train": 8, "val": 200, "test": 40},
        "splits.train=8,splits.test=40",
    )
    assert (found["fgvc_pets"].splits, found["fgvc_pets"].override) == (
        {"val": 5, "test": 3669},
        "splits.val=5",
    )
    assert found["vtab_dtd"] == one("task=vtab_dtd").task  # not in the file
    assert found["digits"] == one().task
    assert identity("task=vtab_cifar", f"data.override={file}") != identity("task=vtab_cifar")
    manifest = manifests()["vtab_cifar"]
    changed, said = overridden(manifest, str(file))
    assert changed == dataclasses.replace(manifest, splits=cifar.splits)
    assert said == cifar.override
    assert overridden(manifests()["digits"], str(file)) == (manifests()["digits"], "")
    assert overridden(manifest, "") == (manifest, "")


BAD_OVERRIDES = {
    "not YAML": ("vtab_cifar: [", "not valid YAML"),
    "not text": ("\udcff", "not valid YAML"),
    "empty": ("", "expected lines `TASK"),
    "a list": ("- vtab_cifar", "expected lines `TASK"),
    "no such task": ("vtab_cifra: {splits: {test: 40}}", "'vtab_cifra' is no task"),
    "a bundled task": ("digits: {splits: {test: 40}}", "'digits' is no task whose sizes can be overridden"),
    "the user's own": ("folder: {splits: {test: 40}}", "'folder' is no task whose sizes"),
    "another fact": ("vtab_cifar: {classes: 3}", "vtab_cifar: expected `splits: {test: 40}`"),
    "one fact more": ("vtab_cifar: {splits: {test: 4}, classes: 3}", "vtab_cifar: expected `splits:"),
    "no facts": ("vtab_cifar: 40", "vtab_cifar: expected `splits:"),
    "no sizes": ("vtab_cifar: {splits: 40}", "vtab_cifar: expected `splits:"),
    "zero": ("vtab_cifar: {splits: {test: 0}}", "positive numbers"),
    "negative": ("vtab_cifar: {splits: {test: -1}}", "positive numbers"),
    "a fraction": ("vtab_cifar: {splits: {test: 1.5}}", "positive numbers"),
    "a word": ("vtab_cifar: {splits: {test: many}}", "positive numbers"),
    "true": ("vtab_cifar: {splits: {test: true}}", "positive numbers"),
    "no such split": ("vtab_cifar: {splits: {tset: 40}}", "vtab_cifar: sizes of train, val, test can be set"),
    "both": ("vtab_cifar: {splits: {trainval: 40}}", "vtab_cifar: sizes of train, val, test can be set"),
}


@pytest.mark.parametrize("kind", BAD_OVERRIDES)
def test_a_bad_file_of_sizes_is_refused(kind: str, tmp_path: Path) -> None:
    content, named = BAD_OVERRIDES[kind]
    file = tmp_path / "sizes.yaml"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        one("task=vtab_cifar", f"data.override={file}")
    message = str(caught.value)
    assert message.startswith(f"data.override={file}: ")
    assert named in message
    assert "\n" not in message


def test_a_file_of_sizes_must_be_there(tmp_path: Path) -> None:
    for path, what in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(UserError, match=f"data.override={path}: cannot be read: {what}"):
            one("task=vtab_cifar", f"data.override={path}")


def test_the_training_size_of_a_few_shot_set_is_its_lists(tmp_path: Path) -> None:
    file = tmp_path / "sizes.yaml"
    file.write_text("fgvc_pets: {splits: {train: 40}}")
    with pytest.raises(UserError, match="fgvc_pets: sizes of val, test can be set"):
        one("task=fgvc_pets", f"data.override={file}")


# Settings and mistakes


def test_settings_a_method_has_no_use_for_make_no_runs() -> None:
    runs = plan(["sweep=none", "task=digits", "adapter=linear", "bits=1,32", "hidden=8,16", "scale=1,2"]).runs
    assert [(r.hidden, r.scale, r.bits, r.quantizer) for r in runs] == [(0, 1.0, 32, "none")]


def test_without_quantization_there_is_no_quantizer() -> None:
    runs = plan([*ONE, "bits=32", "quantizer=minmax,l1_median"]).runs
    assert [r.quantizer for r in runs] == ["none"]
    runs = plan([*ONE, "bits=1", "quantizer=minmax,l1_median"]).runs
    assert [r.quantizer for r in runs] == ["minmax", "l1_median"]


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"bits is given twice.*bits=1,2"):
        plan([*ONE, "bits=1", "bits=2"])


def test_settings_of_one_adapter_go_with_that_adapter() -> None:
    assert one("adapter.dropout=0.25").adapter == AdapterSpec("adaptformer", {"dropout": 0.25, "share": 1})


def either(group: str) -> tuple[str, ...]:
    """Any option of a group will do as a suggestion."""
    return tuple(options(group))


MISTAKES = [
    # override, what the message must name, one of what it must suggest
    ("adapter=adaptfomer", "adaptfomer", ("adaptformer",)),
    ("hiden=3", "hiden", ("hidden",)),
    ("task=digit", "digit", ("digits",)),
    ("task=glob(zzz*)", "task=glob(zzz*)", ("matches nothing",)),
    ("train.epoch=3", "train.epoch", ("train.epochs",)),
    ("backbone=poket", "backbone", ("pocket",)),
    ("quantizer=l1_medain", "quantizer", ("l1_median",)),
    ("head=linaer", "head", ("linear",)),
    ("sweep=nope", "sweep", either("sweep")),
    ("sweep=none,demo", "sweep", ("one sweep",)),
    ("launcher=slurmy", "launcher", either("launcher")),
    ("protocol=sealedd", "protocol", either("protocol")),
    ("precision=fp64", "precision", ("fp32",)),
    ("bits=9", "bits", ("1 to 8",)),
    ("bits=0", "bits", ("1 to 8",)),
    ("bits=one", "bits", ("Integer", "whole number")),
    ("hidden=-1", "hidden", ("positive", "at least 1", "1 or more")),
    (
        "hidden=0",
        "hidden",
        ("positive", "at least 1", "1 or more"),
    ),  # adaptformer without hidden units is no adaptformer
    ("hidden=1.5", "hidden", ("Integer", "whole number")),
    ("seed=x", "seed", ("whole number",)),
    ("seed=-1", "seed", ("whole number",)),
    ("seed=1.0", "seed", ("whole number",)),
    ("adapter.foo=1", "adapter.foo", ("dropout",)),
    ("adapter.dropuot=0.2", "adapter.dropuot", ("adapter.dropout",)),
    ("adapter.dropout=yes", "adapter.dropout", ("float", "number")),
    ("adapter.name=lora", "adapter.name", ("adapter=lora",)),  # would run lora with adaptformer's settings
    ("protocol.name=sealed", "protocol.name", ("protocol=",)),  # rows would claim a protocol nobody followed
    ("launcher.name=slurm", "launcher.name", ("launcher=",)),
    ("task.classes=3", "task.classes", ("manifest", "task=")),  # facts of the data are no settings
    ("backbone.foo=1", "backbone.foo", ("backbone.",)),
    ("scale=0", "scale", ("positive",)),
    ("scale=nan", "scale", ("positive", "finite")),
    ("scale=inf", "scale", ("positive", "finite")),
    ("scale=big", "scale", ("Float", "number")),
    ("train.lr=-1", "train.lr", ("positive",)),
    ("train.lr=inf", "train.lr", ("positive", "finite")),
    ("train.epochs=0", "train.epochs", ("at least 1",)),
    ("train.batch_size=0", "train.batch_size", ("at least 1",)),
    ("train.drop_path=1", "train.drop_path", ("[0, 1)",)),
    ("train.weight_decay=-1", "train.weight_decay", ("0 or more", "positive")),
    ("train.weight_decay=nan", "train.weight_decay", ("0 or more", "positive", "finite")),
    ("train.warmup_epochs=-1", "train.warmup_epochs", ("0 or more", "at least 0")),
    ("train.warmup_lr=-1", "train.warmup_lr", ("0 or more", "positive")),
    ("train.min_lr=-1", "train.min_lr", ("0 or more", "positive")),
    ("train.schedule_lag=-1", "train.schedule_lag", ("0 or more", "at least 0")),
    ("train.normalization=imagnet", "train.normalization", ("imagenet",)),
    ("launcher.workers=two", "workers", ("Integer", "whole number")),
    ("launcher.wrokers=2", "launcher.wrokers", ("launcher.workers",)),
    ("train.lr=interval(0.1,1)", "interval()", ("train.lr=",)),
    ("task=shuffle(digits,surfaces)", "shuffle()", ("list the values",)),
    ("+extra=1", "+extra=1", ("KEY=VALUE",)),
    ("++seed=1", "++seed=1", ("KEY=VALUE",)),
    ("~seed", "~seed", ("KEY=VALUE",)),
    ("bits", "bits", ("KEY=VALUE", "missing EQUAL")),
    ("data.root=[", "data.root=[", ("KEY=VALUE",)),
    ("train=nope", "train 'nope'", either("train")),
    ("tuned=nope", "tuned 'nope'", either("tuned")),
    ("shots=x", "shots", ("whole number",)),
    ("split_seed=1.5", "split_seed", ("whole number",)),
    ("data.rot=x", "data.rot", ("data.root",)),
    ("data.cache_gb=0", "data.cache_gb", ("positive",)),
    ("data.cache_gb=inf", "data.cache_gb", ("positive",)),
    ("data.cache_gb=big", "data.cache_gb", ("number",)),
    ("data.cache_gb=null", "data.cache_gb", ("number",)),
    ("launcher.loaders=-1", "launcher.loaders", ("0 or more",)),
    ("train.augment.crp=true", "train.augment.crp", ("train.augment.crop",)),
    ("train.augment.crop=maybe", "augment.crop", ("bool",)),
    ("train.augment.mixup=-1", "train.augment.mixup", ("0 or more",)),
    ("train.augment.smoothing=2", "train.augment.smoothing", ("0 to 1", "[0, 1)", "[0, 1]")),
    ("train.augment.erasing=3", "train.augment.erasing", ("0 to 1", "[0, 1)", "[0, 1]")),
    ("protocol.scales=[0,1]", "protocol.scales", ("positive",)),
    ("protocol.scales=[1,x]", "scales", ("Float", "number")),
    ("protocol.lrs=[-1]", "protocol.lrs", ("positive",)),
    ("protocol.scales=[]", "scale", ("scales to choose from",)),
    ("protocol.scals=[1]", "protocol.scals", ("protocol.scales",)),
    ("tuned.tabels=[]", "tuned.tabels", ("tuned.tables",)),
]


@pytest.mark.parametrize(("override", "named", "suggested"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_named_with_what_would_be_right(
    override: str, named: str, suggested: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        plan([override] if override.startswith("sweep=") else ["sweep=none", override])
    message = str(caught.value)
    assert named in message
    assert any(text in message for text in suggested), message
    assert "\n" not in message
    assert not any(text in message for text in ("multirun", "pkg://", "hydra.conf", "object_type")), message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task=tree", "data.images=many"], "data.images"),
        (["task=tree", "data.images=0"], "data.images"),
        (["task=tree", "data.images=-3"], "data.images"),
        (["task=tree", "data.images=2.5"], "data.images"),
        (["task=tree", "split_seed=-1"], "split_seed"),  # no seed of a generator
        (["protocol=peek", "protocol.every=0"], "protocol.every"),
        (["protocol=peek", "protocol.every=-1"], "protocol.every"),
        (["protocol=peek", "protocol.every=1.5"], "every"),
        (["backbone=timm", "backbone.normalization=imagnet", "train.normalization=backbone"], "imagenet"),
    ],
)
def test_a_mistake_of_two_settings_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(["sweep=none", *overrides])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_one_method_of_the_sweep_lacks_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match=r"adapter\.dropout.*linear"):
        plan(["task=digits", "bits=1", "adapter.dropout=0.3"])


# Manifests


@pytest.fixture
def manifest_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of manifests with one, digits, to be spoilt."""
    (tmp_path / "digits.yaml").write_text((files.MANIFEST_DIR / "digits.yaml").read_text())
    monkeypatch.setattr(files, "MANIFEST_DIR", tmp_path)
    manifests.cache_clear()
    yield tmp_path
    manifests.cache_clear()


def spoil(directory: Path, **changes: object) -> None:
    """Change keys of digits.yaml; a value of None takes its key out."""
    path = directory / "digits.yaml"
    facts = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in facts.items() if value is not None}))


def test_a_manifest_is_read_as_it_is_written(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text())
    found = dataclasses.asdict(manifests()["digits"])
    assert {key: found[key] for key in facts} == facts
    others = {key: value for key, value in found.items() if key not in facts}
    assert not any(others.values())  # what is not said is 0 or empty
    assert set(manifests()) == {"digits"}


REQUIRED = ["name", "suite", "group", "classes", "source", "splits", "metric", "resize"]


def test_the_keys_that_each_manifest_must_have() -> None:
    without = (dataclasses.MISSING, dataclasses.MISSING)
    found = [f.name for f in dataclasses.fields(Manifest) if (f.default, f.default_factory) == without]
    assert found == REQUIRED


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_key_is_refused(manifest_dir: Path, missing: str) -> None:
    spoil(manifest_dir, **{missing: None})
    with pytest.raises(UserError, match=rf"digits\.yaml: .*{missing}"):
        manifests()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clases": 10}, "clases"),
        ({"classes": "many"}, "classes"),
        ({"splits": {"train": 800, "val": 200}}, "test"),
        ({"splits": {"train": 800, "val": 200, "test": "all"}}, "test"),
        ({"splits": {"train": 800, "val": 200, "test": 0}}, "positive"),
        ({"splits": {"train": 800, "val": 200, "test": 797, "extra": 1}}, "test"),
        ({"splits": {"train800": 800, "val200": 200, "test": 797}}, "train"),
        ({"name": "numbers"}, "numbers"),
        ({"classes": -1}, "classes"),
        ({"classes": 0}, "splits"),  # the user's own data: everything is counted
        ({"train_classes": 11}, "train_classes"),
        ({"resize": "squash"}, "squash.*stretch"),
        ({"metric": "error"}, "error.*accuracy"),
        ({"shots": [1]}, "splits|split_seeds"),
        ({"split_seeds": [0]}, "split_seeds"),
        ({"lists": {"test_meta.list": {"lines": 3}}}, "sha256"),
        ({"lists": {"test_meta.list": {"lines": 3, "sha256": "0", "bytes": 4}}}, "bytes"),
        ({"shots": ["one"]}, "shots"),
    ],
)
def test_a_wrong_key_is_refused(manifest_dir: Path, changes: dict[str, object], named: str) -> None:
    spoil(manifest_dir, **changes)
    with pytest.raises(UserError, match=rf"digits\.yaml: .*{named}"):
        manifests()


@pytest.mark.parametrize("text", ["name: [", "- a list", ""])
def test_a_file_that_is_no_manifest_is_refused(manifest_dir: Path, text: str) -> None:
    (manifest_dir / "digits.yaml").write_text(text)
    with pytest.raises(UserError, match=r"digits\.yaml"):
        manifests()


def test_a_new_manifest_is_a_new_task(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text()) | {"name": "figures", "suite": "mine"}
    (manifest_dir / "figures.yaml").write_text(yaml.safe_dump(facts))
    (spec,) = plan(["sweep=none", "task=figures", "scale=1"]).runs
    keys = ("name", "suite", "group", "classes", "source", "splits", "fingerprint", "resize")
    assert spec.task == TaskSpec(**{key: facts[key] for key in keys})
    assert spec.train == recipe("vtab")  # of a suite without a recipe of its own


def test_a_few_shot_manifest_gives_no_training_size() -> None:
    facts = yaml.safe_load((files.MANIFEST_DIR / "fgvc_pets.yaml").read_text())
    assert files.read_manifest(yaml.safe_dump(facts), "pets.yaml") == manifests()["fgvc_pets"]
    facts["splits"] = {"train": 74, "val": 736, "test": 3669}
    with pytest.raises(UserError, match=r"^pets\.yaml: splits must give the sizes of test, val$"):
        files.read_manifest(yaml.safe_dump(facts), "pets.yaml")


def test_a_task_is_planned_without_looking_at_files() -> None:
    settings = {"root": "/nowhere", "override": "", "images": 500}
    facts = manifests()["fgvc_pets"]
    task = plan_task("fgvc_pets", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (4, 2, 0, {"root": "/nowhere"})
    assert (task.splits, task.fingerprint, task.resize) == (facts.splits, "", "crop")
    task = plan_task("tree", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (0, 2, 500, {"root": "/nowhere"})
    assert (task.classes, task.splits) == (0, {})
    task = plan_task("vtab_cifar", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (0, 0, 0, {"root": "/nowhere"})
    with pytest.raises(UserError, match="unknown task 'vtab_cifra': did you mean 'vtab_cifar'"):
        plan_task("vtab_cifra", settings)


def test_no_tuned_scale_is_said_with_the_way_out(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text()) | {"name": "figures"}
    (manifest_dir / "figures.yaml").write_text(yaml.safe_dump(facts))
    for protocol in ("fixed", "peek"):
        with pytest.raises(UserError, match=r"adaptformer.*figures.*scale=.*protocol=sealed"):
            plan(["sweep=none", "task=figures", "adapter=adaptformer", f"protocol={protocol}"])
    (spec,) = plan(["sweep=none", "task=figures", "adapter=adaptformer"]).runs
    assert spec.scale is None


# Specs and their identity, for any values

names = st.text(min_size=1, max_size=8)
floats = st.floats(min_value=1e-12, max_value=1e12)
values = st.one_of(st.booleans(), st.integers(-9, 9), floats, names)
tasks = st.builds(
    TaskSpec,
    name=names,
    suite=names,
    group=names,
    classes=st.integers(1, 999),
    source=names,
    splits=st.dictionaries(names, st.integers(0, 99)),
    fingerprint=names,
    resize=st.sampled_from(RESIZES),
    shots=st.integers(0, 16),
    split_seed=st.integers(0, 9),
    drawn=st.integers(0, 9999),
    override=st.one_of(st.just(""), names),
    place=st.dictionaries(names, names),
)
backbones = st.builds(
    BackboneSpec,
    name=names,
    weights=names,
    image_size=st.integers(1, 512),
    options=st.dictionaries(names, values),
    label=names,
    normalization=st.sampled_from(sorted(NORMALIZATIONS)),
    published=st.booleans(),
)
shares = st.floats(0, 1)
augments = st.builds(
    AugmentSpec,
    crop=st.booleans(),
    color_jitter=shares,
    auto_augment=st.sampled_from(["", "rand-m9-mstd0.5-inc1"]),
    erasing=shares,
    mixup=shares,
    cutmix=shares,
    smoothing=st.floats(0, 0.9),
)
recipes = st.builds(
    TrainSpec,
    epochs=st.integers(1, 500),
    batch_size=st.integers(1, 256).map(lambda half: 2 * half),  # mixup pairs images
    lr=floats,
    weight_decay=floats,
    warmup_epochs=st.integers(0, 20),
    warmup_lr=floats,
    min_lr=floats,
    schedule_lag=st.integers(0, 2),
    drop_path=st.floats(0, 0.9),
    normalization=st.sampled_from(sorted(NORMALIZATIONS)),
    augment=augments,
)
protocols = st.one_of(
    st.just(ProtocolSpec("fixed")),
    st.builds(ProtocolSpec, st.just("sealed"), lrs=st.lists(floats, max_size=3)),
    st.builds(ProtocolSpec, st.just("peek"), every=st.integers(1, 20)),
)
searches = st.builds(
    ProtocolSpec,
    st.just("sealed"),
    scales=st.lists(floats, min_size=2, max_size=5, unique=True),
    lrs=st.lists(floats, max_size=3, unique=True),
)


def runs(scale: st.SearchStrategy, protocol: st.SearchStrategy) -> st.SearchStrategy[RunSpec]:
    return st.builds(
        RunSpec,
        task=tasks,
        backbone=backbones,
        adapter=st.builds(AdapterSpec, names, st.dictionaries(names, values)),
        hidden=st.integers(1, 64),
        scale=scale,
        quantizer=names,
        bits=st.sampled_from([*range(1, 9), 32]),
        head=names,
        protocol=protocol,
        precision=st.sampled_from(["fp32"]),
        seed=st.integers(0, 2**31),
        train=recipes,
    )


specs = st.one_of(runs(floats, protocols), runs(st.none(), searches))


@given(specs)
def test_a_spec_survives_its_json(spec: RunSpec) -> None:
    again = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert again == spec
    assert run_id(again, WEIGHTS) == run_id(spec, WEIGHTS)


@given(specs, names)
def test_paths_and_documentation_are_no_identity(spec: RunSpec, other: str) -> None:
    moved = dataclasses.replace(
        spec,
        task=dataclasses.replace(spec.task, place={other: other}),
        backbone=dataclasses.replace(
            spec.backbone,
            weights=other,
            label=other,
            normalization=other,
            published=not spec.backbone.published,
        ),
    )
    assert run_id(moved, WEIGHTS) == run_id(spec, WEIGHTS)


@given(runs(st.none(), searches))
def test_candidates_are_all_pairs_of_scale_and_rate(spec: RunSpec) -> None:
    rates = spec.protocol.lrs or [spec.train.lr]
    pairs = [(r.scale, r.train.lr) for r in spec.candidates]
    assert pairs == sorted((scale, lr) for scale in spec.protocol.scales for lr in rates)
    for found in spec.candidates:  # and differ in nothing else
        assert dataclasses.replace(found, scale=None, train=spec.train) == spec


@given(specs, st.integers(0, 2**31))
def test_data_weights_and_seed_are_identity(spec: RunSpec, seed: int) -> None:
    fingerprint = dataclasses.replace(spec.task, fingerprint=spec.task.fingerprint + "0")
    others = {
        run_id(spec, "1" * 64),
        run_id(dataclasses.replace(spec, task=fingerprint), WEIGHTS),
        run_id(dataclasses.replace(spec, seed=spec.seed + 1 + seed), WEIGHTS),
    }
    assert run_id(spec, WEIGHTS) not in others
    assert len(others) == 3


def test_specs_of_before_the_younger_settings_are_read() -> None:
    (spec,) = plan(["sweep=none", "task=digits", "bits=1", "scale=1"]).runs
    old = json.loads(json.dumps(spec_to_dict(spec)))
    for name in ("rate_weight", "packing", "statistics"):
        del old[name]
    assert spec_from_dict(old) == dataclasses.replace(spec, packing="raw")  # as their files were


@pytest.mark.parametrize(
    ("overrides", "packings"),
    [
        ("adapter=adaptformer bits=1 head=linear", {("coded", "exact"), ("raw", "short")}),
        ("adapter=linear bits=1 head=linear", {("coded", "exact")}),
        ("adapter=adaptformer bits=32 head=linear", {("coded", "exact")}),
        ("adapter=linear bits=1 head=binary", {("coded", "exact"), ("raw", "short")}),
    ],
)
def test_what_has_no_codes_is_one_run_whatever_its_packing(
    overrides: str, packings: set[tuple[str, str]]
) -> None:
    common = ["sweep=none", "task=digits", "scale=1", "packing=coded,raw", "statistics=exact,short"]
    found = {(run.packing, run.statistics) for run in plan([*common, *overrides.split()]).runs}
    assert packings <= found
    assert len(found) == (4 if len(packings) == 2 else 1)
