"""Specs and their identity, for any values."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.config import (
    plan,
)
from petl_bench.types import (
    NORMALIZATIONS,
    RESIZES,
    AdapterSpec,
    AugmentSpec,
    BackboneSpec,
    ProtocolSpec,
    RunSpec,
    TaskSpec,
    TrainSpec,
    run_id,
    spec_from_dict,
    spec_to_dict,
)
from tests.made import WEIGHTS

names = st.text(min_size=1, max_size=8)
floats = st.floats(min_value=1e-12, max_value=1e4)
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
    image_size=st.integers(8, 512),
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
    for name in (
        "start",
        "matrix_lr",
        "float_bits",
        "container",
        "statistics_of",
        "rate_weight",
        "packing",
        "statistics",
        "compress",
        "kept",
        "strength",
    ):
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
