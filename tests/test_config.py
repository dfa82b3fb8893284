"""Overrides are turned into a plan; the expected numbers are counted by hand from conf/."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.config import (
    CONF_DIR,
    Plan,
    compose,
    options,
    plan,
)
from petl_bench.types import (
    Cache,
    PoolSettings,
    ProtocolSpec,
    RunSpec,
    run_id,
    spec_to_dict,
)
from tests import processes
from tests.conftest import LONG, json_lines, petl, quickly
from tests.made import WEIGHTS

ONE = ["sweep=none", "task=digits", "adapter=adaptformer"]
"""Overrides of one run with the values of conf/config.yaml."""
TASKS = ["digits", "surfaces", "sprites_loc", "sprites_ori", "shapes_count"]
GRID = [0.01, 0.1, 1.0, 10.0, 100.0]
"""Scales that arXiv 2307.16867 and its released code search."""


def ids(found: Plan) -> list[str]:
    return [run_id(spec, WEIGHTS) for spec in found.runs]


def one(*overrides: str) -> RunSpec:
    """Return the run of ONE with these overrides, which replace overrides of the same key."""
    (spec,) = plan(list({text.partition("=")[0]: text for text in [*ONE, *overrides]}.values())).runs
    return spec


def identity(*overrides: str) -> str:
    return run_id(one(*overrides), WEIGHTS)


@pytest.fixture(scope="module")
def default() -> Plan:
    return plan([])


def test_the_default_plan_is_the_embedded_suite(default: Plan) -> None:
    # 5 tasks x (linear once, for it has no bits, + 2 adapters x 3 widths) = 35
    widths = yaml.safe_load((CONF_DIR / "sweep" / "default.yaml").read_text())["hydra"]["sweeper"]["params"]
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


GIVEN = {
    "train.lr": ["1e-3", "0.5", "2"],
    "train.epochs": ["7", "12"],
    "train.warmup_epochs": ["0", "3"],
    "train.normalization": ["imagenet", "'none'"],
    "train.augment.crop": ["true", "False"],
    "train.augment.color_jitter": ["0.4"],
    "train.average.by": ["loss", "'loss'"],
    "adapter.dropout": ["0", "1e-1"],
    "adapter.allocation": ["uniform", "middle"],
    "backbone.image_size": ["64", "32"],
    "backbone.label": ["mine", "'a b'", "a-b"],
    "protocol.scales": ["[1]", "[0.1,10]"],
    "protocol.rungs": ["[0.5]"],
    "launcher.threads": ["2"],
    "data.images": ["500"],
    "data.root": [
        "/some/folder",
        "'my photos (2024)'",
        "../a:b-c.d",
        "'it is 100%, [x]=y'",
        r"a\ b\,c",
        "??",
    ],
    "data.cache": ["'~/cache'", "a/b", "'~/{a}'", "'#1'", "'null'"],
}
"""Settings of `adapter=lora protocol=sealed launcher=pool`, and values as they may be written."""


@settings(max_examples=50 if LONG else 8)
@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(texts) for key, texts in GIVEN.items()}))
def test_settings_that_are_changed_after_composing_are_as_hydra_would_compose_them(given: dict) -> None:
    lines = ["sweep=none", "adapter=lora", "protocol=sealed", "launcher=pool", "bits=1,2"]
    lines += [f"{key}={text}" for key, text in given.items()]
    found = plan(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_is_plain", lambda line: False)
        patch.setattr(compose, "_whole", lambda lines: set())
        compose._composed.cache_clear()
        composed = plan(lines)
        compose._composed.cache_clear()
    assert found == composed
    assert [spec_to_dict(spec) for spec in found.runs] == [spec_to_dict(spec) for spec in composed.runs]


def test_another_process_plans_the_same(tmp_path: Path) -> None:
    overrides = ["task=digits,surfaces", "bits=1,32", "seed=0,1"]
    command = ["sweep", "--dry-run", "--json", *overrides]
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    here, there = quickly(*command, cwd=tmp_path), petl(*command, cwd=tmp_path, PYTHONHASHSEED=other)
    found, again = ([row["run_id"] for row in json_lines(done.stdout)] for done in (here, there))
    assert found == again
    assert len(found) == 20  # 2 tasks x (1 + 2 x 2) x 2 seeds


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
    # Bundled in two suites, VTAB-1K, few-shot FGVC, the user's own in two layouts.
    assert len(found) == 5 + 19 + 19 + 5 + 2


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
        (["launcher=local"], ["launcher=local"]),
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
    assert plan([*ONE, "launcher=local"]).launcher.name == "local"
    chosen = plan([*ONE, "launcher.workers=3", "launcher.threads=2", "launcher.device=cpu"]).launcher
    assert chosen == PoolSettings(device="cpu", workers=3, threads=2)
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
    done = processes.run(command, env=os.environ | where, check=True)
    assert done.stdout == "/some/data /some/cache\n"
