"""Recipes, tuned scales, sweeps and few-shot lists of a suite in a plan, and overridden facts."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from petl_bench.config import CONF_DIR, group_config, options, overridden, plan
from petl_bench.data import manifests
from petl_bench.errors import UserError
from petl_bench.types import (
    AugmentSpec,
    TrainSpec,
    run_id,
)
from tests.made import WEIGHTS
from tests.test_config import GRID, identity, one


def recipe(name: str) -> TrainSpec:
    """Read conf/train/NAME.yaml without petl_bench."""
    values = yaml.safe_load((CONF_DIR / "train" / f"{name}.yaml").read_text())
    values |= {"lr": float(values["lr"]), "weight_decay": float(values["weight_decay"])}
    values |= {"warmup_lr": float(values["warmup_lr"]), "min_lr": float(values["min_lr"])}
    return TrainSpec(**values | {"augment": AugmentSpec(**values.get("augment", {}))})


OF_SUITES = {
    "digits": "pocket",
    "vtab_cifar": "vtab",
    "fgvc_pets": "fgvc",
    "folder": "vtab",
    "tree": "vtab",
}
"""The default recipe of each task."""


def test_the_recipe_is_that_of_the_tasks_suite() -> None:
    found = plan(["sweep=none", f"task={','.join(OF_SUITES)}"]).runs
    assert {r.task.name: r.train for r in found} == {task: recipe(name) for task, name in OF_SUITES.items()}
    assert len({r.train.epochs for r in found}) > 1  # they do differ


def test_the_recipes_of_the_benchmarks_are_the_published_ones() -> None:
    # Released code of arXiv 2307.16867 for VTAB-1K and few-shot sets. Repository ZhangYuanhan-AI/NOAH adds
    # erasing, mixup, cutmix and label smoothing.
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
        # Shares of 3 epochs: 2 of 6 are 1, 10 of 100 are 0.
        warm_up = 1 if name == "pocket" else 0
        expected = dataclasses.replace(recipe(name), epochs=3, warmup_epochs=warm_up, schedule_lag=0)
        assert one(f"task={task}", "train.epochs=3").train == expected


def test_tuned_scales_are_those_of_the_tasks_suite() -> None:
    found = plan(["sweep=none", "task=digits,vtab_cifar", "hidden=32", "protocol=fixed"]).runs
    assert [r.scale for r in found] == [10.0, 0.1]  # conf/tuned/pocket.yaml and vtab.yaml
    for task in ("fgvc_pets", "folder", "tree"):  # nobody has published any
        with pytest.raises(UserError, match=rf"no scale for .*task={task}: .*protocol=sealed"):
            one(f"task={task}", "protocol=fixed")
    with pytest.raises(UserError, match=r"no scale for .*task=digits"):
        one("protocol=fixed", "tuned=none")


def test_a_tuned_rate_holds_unless_one_is_chosen() -> None:
    tables = "tuned.tables=[{adapter:linear,hidden:3,lrs:{digits:0.5}},{adapter:linear,lrs:{digits:0.25}}]"

    def lr(*overrides: str) -> float:
        return one("task=digits", "adapter=linear", tables, *overrides).train.lr

    own = recipe("pocket").lr
    assert lr("protocol=fixed") == lr("protocol=peek") == 0.25
    assert lr("protocol=fixed", "hidden=3") == 0.5
    assert lr("protocol=fixed", "train.epochs=3") == 0.25
    assert lr("protocol=sealed") == own  # whose rates are searched by protocol.lrs
    assert lr("protocol=fixed", "train.lr=0.125") == 0.125
    assert lr("protocol=fixed", f"train.lr={own}") == own
    assert lr("protocol=fixed", "train=vtab") == recipe("vtab").lr
    swept = plan(
        ["sweep=none", "task=digits", "protocol=fixed", "adapter=linear", tables, "train.lr=0.1,0.2"]
    )
    assert [run.train.lr for run in swept.runs] == [0.1, 0.2]
    with pytest.raises(UserError, match=r"tuned\.tables: expected a list"):
        one("protocol=fixed", "adapter=linear", "tuned.tables=[{adapter:linear,lrs:{digits:fast}}]")


@pytest.mark.parametrize("backbone", options("backbone"))
def test_a_recipe_may_take_the_normalization_of_the_backbone(backbone: str) -> None:
    own = group_config("backbone", backbone).get("normalization", "none")
    if own == "timm":
        own = "half"  # of vit_base_patch16_224, by its configuration in timm
    spec = one(f"backbone={backbone}", "train.normalization=backbone")
    assert spec.train.normalization == own  # a row says what it was, not where it came from
    same = one(f"backbone={backbone}", f"train.normalization={own}")
    assert run_id(spec, WEIGHTS) == run_id(same, WEIGHTS)
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
    assert all(r.protocol.scales == tuple(GRID) for r in left_to_val)
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
    "not text": ("\udcff", "is not UTF-8 text"),
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
    assert re.match(rf"data\.override={re.escape(str(file))}(, line \d+(, column \d+)?)?: ", message)
    assert named in message
    assert "\n" not in message


def test_a_file_of_sizes_must_be_there(tmp_path: Path) -> None:
    missing, kind = "cannot be read: No such file", "is a directory, not a regular file"
    for path, what in [(tmp_path / "none.yaml", missing), (tmp_path, kind)]:
        with pytest.raises(UserError, match=f"data.override={path}: {what}"):
            one("task=vtab_cifar", f"data.override={path}")


def test_the_training_size_of_a_few_shot_set_is_its_lists(tmp_path: Path) -> None:
    file = tmp_path / "sizes.yaml"
    file.write_text("fgvc_pets: {splits: {train: 40}}")
    with pytest.raises(UserError, match="fgvc_pets: sizes of val, test can be set"):
        one("task=fgvc_pets", f"data.override={file}")
