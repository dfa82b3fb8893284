"""Overrides -> plan. The expected plans are counted by hand from conf/ and the guide's command line."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.config import CONF_DIR, LauncherSpec, Plan, files, manifests, options, plan
from petl_bench.errors import UserError
from petl_bench.types import (
    NORMALIZATIONS,
    AdapterSpec,
    BackboneSpec,
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
    assert sorted(r.task.name for r in found) == sorted(TASKS)


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
    ],
)
def test_another_run(change: str) -> None:
    assert identity(change) != identity()


def test_the_launcher_is_planned_beside_the_runs() -> None:
    assert plan([*ONE, "launcher=serial"]).launcher.name == "serial"
    chosen = plan([*ONE, "launcher.workers=3", "launcher.threads=2", "launcher.device=cpu"]).launcher
    assert chosen == LauncherSpec("local", "cpu", 3, 2)


@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
@pytest.mark.parametrize("task", TASKS)
def test_the_scale_is_the_tuned_one(adapter: str, task: str) -> None:
    tuned = yaml.safe_load((CONF_DIR / "tuned" / "pocket.yaml").read_text())["scales"][adapter]
    assert one(f"adapter={adapter}", f"task={task}").scale == tuned[task]


def test_an_explicit_scale_wins_over_the_tuned_one() -> None:
    assert one("scale=0.123").scale == 0.123
    assert one("scale=0.123", "adapter=lora", "task=surfaces").scale == 0.123


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
    assert one("adapter.dropout=0.25").adapter == AdapterSpec("adaptformer", {"dropout": 0.25})


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
    assert dataclasses.asdict(manifests()["digits"]) == facts
    assert set(manifests()) == {"digits"}


@pytest.mark.parametrize(
    "missing", [f.name for f in dataclasses.fields(TaskSpec) if f.default_factory is dataclasses.MISSING]
)
def test_a_missing_key_is_refused(manifest_dir: Path, missing: str) -> None:
    spoil(manifest_dir, **{missing: None})
    with pytest.raises(UserError, match=rf"digits\.yaml: .*{missing}"):
        manifests()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clases": 10}, "clases"),
        ({"classes": "many"}, "classes"),
        ({"splits": {"train800": 800, "val200": 200}}, "test"),
        ({"splits": {"train800": 800, "val200": 200, "test": "all"}}, "test"),
        ({"name": "numbers"}, "numbers"),
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
    assert spec.task == TaskSpec(**facts)


def test_no_tuned_scale_is_said_with_the_way_out(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text()) | {"name": "figures"}
    (manifest_dir / "figures.yaml").write_text(yaml.safe_dump(facts))
    with pytest.raises(UserError, match=r"adaptformer.*figures.*scale="):
        plan(["sweep=none", "task=figures", "adapter=adaptformer"])


# Specs and their identity, for any values

names = st.text(min_size=1, max_size=8)
floats = st.floats(min_value=1e-12, max_value=1e12)
values = st.one_of(st.booleans(), st.integers(-9, 9), floats, names)
tasks = st.builds(
    TaskSpec,
    *[names] * 3,
    st.integers(1, 999),
    names,
    st.dictionaries(names, st.integers(0, 99)),
    names,
    st.dictionaries(names, names),
)
backbones = st.builds(BackboneSpec, names, names, st.integers(1, 512), st.dictionaries(names, values), names)
recipes = st.builds(
    TrainSpec,
    epochs=st.integers(1, 500),
    batch_size=st.integers(1, 512),
    lr=floats,
    weight_decay=floats,
    warmup_epochs=st.integers(0, 20),
    warmup_lr=floats,
    min_lr=floats,
    schedule_lag=st.integers(0, 2),
    drop_path=st.floats(0, 0.9),
    normalization=st.sampled_from(sorted(NORMALIZATIONS)),
)
specs = st.builds(
    RunSpec,
    task=tasks,
    backbone=backbones,
    adapter=st.builds(AdapterSpec, names, st.dictionaries(names, values)),
    hidden=st.integers(1, 64),
    scale=floats,
    quantizer=names,
    bits=st.sampled_from([*range(1, 9), 32]),
    head=names,
    protocol=st.sampled_from(["fixed"]),
    precision=st.sampled_from(["fp32"]),
    seed=st.integers(0, 2**31),
    train=recipes,
)


@given(specs)
def test_a_spec_survives_its_json(spec: RunSpec) -> None:
    again = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert again == spec
    assert run_id(again, WEIGHTS) == run_id(spec, WEIGHTS)


@given(specs, names)
def test_paths_and_documentation_are_no_identity(spec: RunSpec, other: str) -> None:
    moved = dataclasses.replace(
        spec,
        task=dataclasses.replace(spec.task, about={other: other}),
        backbone=dataclasses.replace(spec.backbone, weights=other),
    )
    assert run_id(moved, WEIGHTS) == run_id(spec, WEIGHTS)


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
