"""Recipes of own data, of short runs and of heads alone, and what the plan says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.cli.idle import idle, unused
from petl_bench.config import options, plan
from petl_bench.run.metadata import recipe_hash
from petl_bench.run.search import search, trainings
from petl_bench.store import Store
from petl_bench.train import learning_rate
from petl_bench.types import RunSpec, run_id, spec_to_dict, stored_id
from tests import trees
from tests.conftest import error_of, json_lines, quickly
from tests.made import WEIGHTS, make_row

ONE = ["sweep=none", "task=digits", "adapter=lora", "scale=1"]
OWN = ["tree", "folder"]


def one(*overrides: str) -> RunSpec:
    (spec,) = plan([*ONE, *overrides]).runs
    return spec


# Own data


@pytest.mark.parametrize("backbone", options("backbone"))
def test_own_data_get_the_pixels_of_the_pretraining(backbone: str) -> None:
    task = "folder" if backbone == "pocket" else "tree"
    (spec,) = plan([f"task={task}", f"backbone={backbone}", "adapter=lora"]).runs
    (asked,) = plan(["sweep=none", f"task={task}", f"backbone={backbone}", "adapter=lora", "train=vtab"]).runs
    (given_,) = plan(
        [f"task={task}", f"backbone={backbone}", "adapter=lora", "train.normalization=clip"]
    ).runs
    if backbone != "timm":
        assert spec.train.normalization == spec.backbone.normalization
    assert asked.train.normalization == "none"  # a published recipe that is asked for stays as it is
    assert given_.train.normalization == "clip"


@pytest.mark.parametrize("task", ["digits", "vtab_dtd", "fgvc_cars"])
def test_benchmarks_keep_the_pixels_of_their_recipe(task: str) -> None:
    (spec,) = plan(["sweep=none", f"task={task}", "backbone=vit_b16_in21k"]).runs
    assert spec.train.normalization == ("imagenet" if task == "fgvc_cars" else "none")


@pytest.mark.parametrize("recipe", ["pocket", "pocket19", "vtab", "own", "fgvc"])
@pytest.mark.parametrize("weights", ["bundled", "random", "file"])
def test_a_sweep_warns_where_pixels_are_not_those_of_the_pretraining(
    weights: str, recipe: str, tmp_path: Path
) -> None:
    name = "vit_tiny_patch16_224"
    overrides = ["backbone=timm", f"backbone.name={name}", "backbone.options.depth=1"]
    overrides += [f"backbone.weights={'w.pth' if weights == 'file' else 'random'}"]
    if weights == "file":
        torch.save(timm.create_model(name, depth=1).state_dict(), tmp_path / "w.pth")
    arguments = ["sweep", *ONE, "protocol=fixed", "head=linear", f"train={recipe}", "--dry-run"]
    done = quickly(*arguments, *([] if weights == "bundled" else overrides), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warned = f"pixels are not normalized, {name} was pretrained with normalized ones" in done.stderr
    assert warned == (weights == "file" and recipe in ("pocket", "pocket19", "vtab"))


@pytest.mark.parametrize("task", OWN)
def test_own_data_are_searched_unless_told_otherwise(task: str) -> None:
    """The axes of `default`, its five epochs and its tuned scales are those of the bundled suite."""
    (spec,) = plan([f"task={task}"]).runs
    assert (spec.protocol.name, spec.scale, spec.train.epochs) == ("sealed", None, 100)
    assert len(spec.candidates) == 5
    assert plan(["sweep=none", f"task={task}"]).runs == [spec]
    assert {run.protocol.name for run in plan([f"task={task}", "sweep=default", "scale=1"]).runs} == {"fixed"}
    assert plan([f"task={task}", "protocol=fixed", "scale=2"]).runs[0].protocol.name == "fixed"
    assert all("sweep=none" in alone for alone in plan([f"task={task}", "bits=1,32"]).alone)


def test_the_recipe_of_own_data_is_that_of_vtab_but_for_the_pixels() -> None:
    """With the bundled backbone, whose pretraining has no normalization, they are one run."""
    assert run_id(one("train=own"), WEIGHTS) == run_id(one("train=vtab"), WEIGHTS)


# Runs that are shorter than their recipe


@settings(max_examples=10)
@given(recipe=st.sampled_from(options("train")), epochs=st.integers(1, 120))
def test_the_warm_up_of_a_short_run_ends_in_its_first_half(recipe: str, epochs: int) -> None:
    whole, spec = one(f"train={recipe}").train, one(f"train={recipe}", f"train.epochs={epochs}")
    rates = [learning_rate(epoch, spec.train) for epoch in range(epochs)]
    # The cosine over E epochs is at 1/2 of the way down after E/2 of them, so the peak is above that.
    assert max(rates) > spec.train.lr / 3
    assert idle([spec]) == []
    if epochs >= 2 * whole.warmup_epochs:  # it fits as it is: the id of earlier versions
        assert (spec.train.warmup_epochs, spec.train.schedule_lag) == (
            whole.warmup_epochs,
            whole.schedule_lag,
        )
    else:  # its share
        assert spec.train.warmup_epochs == whole.warmup_epochs * epochs // whole.epochs


def test_a_warm_up_that_is_given_stays_and_the_plan_says_what_it_does(tmp_path: Path) -> None:
    given_ = ["train=vtab", "train.epochs=10", "train.warmup_epochs=10"]
    spec = one(*given_)
    assert spec.train.warmup_epochs == 10
    assert run_id(spec, WEIGHTS) != run_id(one(*given_[:2]), WEIGHTS)  # other numbers, another id
    done = quickly("sweep", "--dry-run", "--store", tmp_path / "store", *ONE, *given_)
    (warning,) = done.stderr.splitlines()
    assert "train.warmup_epochs=10 and train.schedule_lag=1 take all of train.epochs=10" in warning
    assert "train.warmup_epochs=10 " in done.stdout


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.warmup_epochs=6"], "never reaches train.lr"),
        (["train.warmup_epochs=5", "train.schedule_lag=1"], "never reaches train.lr"),
        (["protocol=peek", "protocol.every=7"], "looks at test once"),
        (["protocol.rungs=[0.5]"], "protocol.rungs=[0.5] has no effect"),
        (["train.augment.color_jitter=0.4"], "no effect without train.augment.crop=true"),
        (["train.augment.auto_augment=rand-m9"], "no effect without train.augment.crop=true"),
        # 1,000 images in batches of 32 are 31 steps
        (["adapter=dylora", "hidden=32", "train.epochs=1"], "only 31 steps"),
    ],
)
@pytest.mark.sampled(3)
def test_what_cannot_act_is_said(overrides: list[str], said: str) -> None:
    held = [line for line in ONE if line.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    specs = plan([*held, *overrides, "seed=0,1"]).runs
    (sentence,) = idle(specs)  # once for both seeds
    assert said in sentence


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.warmup_epochs=5"],
        ["protocol=peek", "protocol.every=6"],
        ["train.augment.color_jitter=0.4", "train.augment.crop=true"],
        ["adapter=dylora", "hidden=31", "train.epochs=1"],
    ],
)
def test_what_can_act_is_not_complained_about(overrides: list[str]) -> None:
    held = [line for line in ONE if not (line.startswith("adapter") and overrides[0].startswith("adapter"))]
    assert idle(plan([*held, *overrides]).runs) == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["shots=4"], "shots"),
        (["split_seed=2"], "split_seed"),
        (["task=folder", "data.images=50"], "data.images"),
        (["adapter=linear", "hidden=4"], "hidden"),
        (["adapter=ssf", "scale=2"], "scale"),
        (["adapter=bitfit", "bits=1,4"], "bits"),
        (["bits=32", "quantizer=minmax"], "quantizer"),
        (["bits=32", "rate_weight=0.1"], "rate_weight"),
        (["adapter=lora", "float_bits=1"], "float_bits"),
        (["adapter=vpt_deep", "start=0.02"], "start"),
        (["adapter=bitfit", "start=0.02"], "start"),
        (["adapter=linear", "matrix_lr=3"], "matrix_lr"),
        (["scale=1", "protocol.scales=[1,10]"], "protocol.scales"),
        (["train.average.every=2"], "train.average.every"),
    ],
)
def test_a_setting_that_no_run_uses_is_said(overrides: list[str], key: str) -> None:
    held = {
        line.partition("=")[0]: line for line in ["sweep=none", "task=digits", "adapter=lora", *overrides]
    }
    (sentence,) = unused(held.values(), plan([*held.values()]).runs)
    assert sentence.startswith(key)
    assert "has no effect" in sentence


@pytest.mark.parametrize(
    "overrides",
    [
        ["adapter=linear,lora", "hidden=4", "bits=1,32", "scale=2", "quantizer=minmax", "rate_weight=0.1"],
        ["task=fgvc_cars", "shots=4", "split_seed=2"],
        ["task=tree", "data.images=50", "split_seed=2"],
        ["protocol.scales=[2]"],
        ["train.average.every=1", "train.average.checkpoints=2"],
    ],
)
def test_a_setting_that_some_run_uses_is_not_complained_about(overrides: list[str]) -> None:
    held = {
        line.partition("=")[0]: line for line in ["sweep=none", "task=digits", "adapter=lora", *overrides]
    }
    assert unused(held.values(), plan([*held.values()]).runs) == []


def test_a_rate_weight_in_one_epoch_is_refused() -> None:
    for overrides in (["train.epochs=1"], ["train.epochs=1", "train.warmup_epochs=0"]):
        message = error_of(quickly("sweep", "--dry-run", *ONE, "rate_weight=0.1", *overrides))
        assert "rate_weight=0.1" in message
        assert "from the second epoch on" in message


# A head alone


def test_a_head_alone_ignores_drop_path_and_passes_each_image_once(tmp_path: Path) -> None:
    overrides = ["sweep=none", "task=digits", "adapter=linear", "train.epochs=4", "launcher=local"]
    done = quickly("sweep", "--store", tmp_path, *overrides, "train.drop_path=0,0.5", "--json")
    (row,) = json_lines(done.stdout)  # they are one run
    # 1,000 training images, not 4,000
    assert round(row["images_per_second"] * row["seconds_train"] / row["n_train"]) == 1


def test_a_head_alone_is_compared_with_adapters_of_the_same_recipe(tmp_path: Path) -> None:
    """Its identity has no drop path, but it was trained by the recipe: one table."""
    linear, lora = plan(["sweep=none", "task=vtab_dtd", "adapter=linear,lora", "scale=1"]).runs
    assert recipe_hash(linear) == recipe_hash(lora)
    without = [replace(spec, train=replace(spec.train, drop_path=0.0)) for spec in (linear, lora)]
    assert [
        run_id(a, WEIGHTS) == run_id(b, WEIGHTS) for a, b in zip((linear, lora), without, strict=True)
    ] == [
        True,
        False,
    ]
    # A store of 0.1.0 has it under the id with drop path: older, not damaged.
    old = stored_id(spec_to_dict(linear), WEIGHTS, 4)
    assert old != run_id(linear, WEIGHTS)
    Store(tmp_path).put(linear, make_row(linear, 0.5, run_id=old), b"adapter")
    found = json_lines(quickly("store", "check", "--store", tmp_path, "--json").stdout)
    kinds = {problem["kind"] for problem in found if "kind" in problem}
    assert "older" in kinds
    assert "identity" not in kinds


# The plan


@pytest.mark.parametrize(
    "overrides",
    [
        ["scale=1"],
        ["protocol.scales=[1,10]"],
        ["protocol.scales=[1,10]", "protocol.lrs=[1e-3,1e-2,1e-1]"],
        ["protocol.rungs=[0.25,0.5]"],
        ["protocol.rungs=[0.25,1.0]"],
    ],
)
@pytest.mark.parametrize("task", ["digits", "fgvc_cars"])
@pytest.mark.sampled(4)
def test_the_trainings_of_a_plan_are_those_of_the_search(task: str, overrides: list[str]) -> None:
    (spec,) = plan(["sweep=none", f"task={task}", "train.epochs=8", *overrides]).runs
    tried: list[int] = []

    def attempt(candidate: RunSpec) -> tuple[float, RunSpec | None]:
        tried.append(candidate.train.epochs)
        kept = candidate.task.shots and candidate.train.epochs == spec.train.epochs  # as `select` does it
        return 0.5, candidate if kept else None

    result = search(spec, attempt)
    assert result is not None
    assert trainings(spec) == tried + ([] if result.model is not None else [8])


def test_the_plan_says_what_will_be_done(tmp_path: Path) -> None:
    for label, name in enumerate(["cats", "dogs"]):
        for number in range(8):
            trees.save(trees.picture(label, number, 40), tmp_path / "photos" / name / f"{number}.jpg")
    environment = {"PETL_BENCH_CACHE": str(tmp_path / "cache")}
    own = ["task=tree", f"data.root={tmp_path / 'photos'}", "data.images=10", "adapter=lora,linear"]
    arguments = [
        "sweep",
        "--dry-run",
        "--store",
        tmp_path / "store",
        *own,
        "train.epochs=10",
        "train.batch_size=4",
        "launcher.device=cpu",
    ]
    done = quickly(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    said = {line.partition(":")[0]: line for line in done.stdout.splitlines()}
    assert "train.epochs=10 train.batch_size=4 train.lr=0.001 " in said["recipe"]
    assert " train.warmup_epochs=1 " in said["recipe"]
    assert said["input"] == "input: 32 x 32 pixels of backbone pocket, normalization none"
    assert said["device"] == "device: cpu, precision fp32"
    # LoRA has five scales to try and a final training, linear has one training.
    assert "7 trainings, because protocol=sealed searches among 5 candidates" in said["2 runs, 2 to do"]
    found = json_lines(quickly(*arguments, "--json", **environment).stdout)
    assert [(run["trainings"], run["image_size"], run["device"], run["seconds"]) for run in found] == [
        (6, 32, "cpu", None),
        (1, 32, "cpu", None),
    ]
    assert {json.dumps(run["train"]["epochs"]) for run in found} == {"10"}
