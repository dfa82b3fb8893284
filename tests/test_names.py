"""Readable names of runs: short within a sweep, and never equal for two of its runs."""

from __future__ import annotations

from petl_bench.config import plan
from petl_bench.types import distinct_names, names_in_sweep


def named(*overrides: str) -> list[str]:
    runs = {str(number): spec for number, spec in enumerate(plan(overrides).runs)}
    names = list(names_in_sweep(runs).values())
    assert len({*names}) == len(runs) == len({*distinct_names(runs).values()})
    return names


def test_settings_that_all_runs_of_a_method_share_are_left_out() -> None:
    assert [name for name in named("sweep=demo") if name.startswith("digits/")] == [
        "digits/linear-s0",
        *(f"digits/{method}-h16-b{bits}-s0" for method in ("adaptformer", "lora") for bits in (1, 32)),
    ]


def test_settings_that_differ_are_named() -> None:
    assert named("task=digits", "adapter=lora", "bits=1", "head=linear,binary", "start=0.02") == [
        "digits/lora-h16-b1-s0",
        "digits/lora-h16-b1-head=binary-s0",
    ]
    assert named("task=digits", "adapter=lora,linear", "bits=1", "head=binary") == [
        "digits/lora-h16-b1-s0",
        "digits/linear-s0",
    ]
    assert named("task=digits", "adapter=lora", "bits=1", "head=binary") == [
        "digits/lora-h16-b1-head=binary-s0",  # a single run is named in full
    ]


def test_runs_of_one_readable_name_are_told_apart_by_what_it_lacks() -> None:
    fixed, searched = named("task=digits", "adapter=lora", "bits=1", "protocol=fixed,sealed")
    many = [
        "train.lr=0.1,0.2,0.3",
        "train.weight_decay=0,1,2",
        "train.drop_path=0,0.1,0.2",
        "train.min_lr=0,1e-7,1e-6",
    ]
    assert len(named("task=digits", "adapter=lora", "bits=1", "scale=2.0,2.0000001", *many)) == 2 * 3**4
    for name, protocol in ((fixed, "fixed"), (searched, "sealed")):
        assert name.startswith("digits/lora-h16-b1-s0 ")
        assert f" protocol={protocol}" in name
