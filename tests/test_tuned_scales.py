"""Scales of a plan: tuned, given or left to a search; settings of a protocol."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from petl_bench.config import (
    CONF_DIR,
    plan,
)
from petl_bench.errors import UserError
from petl_bench.types import (
    ProtocolSpec,
)
from tests import golden
from tests.test_config import GRID, TASKS, one


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
    expected = {
        (
            method.removesuffix("-bihead"),
            "binary" if method.endswith("-bihead") else "linear",
            hidden,
            task,
        ): s
        for (method, hidden, task), s in golden.released("scales").items()
    }
    axes = ["task=glob(vtab_*)", "adapter=adaptformer,lora", "head=linear,binary", "hidden=1,32"]
    runs = plan(["sweep=none", "protocol=fixed", *axes]).runs
    assert len(runs) == len(expected) == 152  # 19 tasks, 4 methods, 2 widths
    found = {(r.adapter.name, r.head, r.hidden, r.task.name.removeprefix("vtab_")): r.scale for r in runs}
    assert found == expected


def test_a_sealed_run_leaves_the_scale_to_val() -> None:
    spec = one()  # what conf/config.yaml says of a single run
    assert spec.scale is None
    assert spec.protocol == ProtocolSpec("sealed", scales=tuple(GRID))
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
        assert (spec.scale, spec.protocol.name, spec.protocol.scales) == (0.123, protocol, ())
        assert spec.candidates == [spec]


def test_settings_of_a_protocol_go_with_that_protocol() -> None:
    # The released code of arXiv 2307.16867 evaluates on test every 10 epochs.
    assert one("protocol=peek").protocol == ProtocolSpec("peek", every=10)
    for protocol, setting in [("fixed", "scales=[1.0]"), ("peek", "lrs=[1.0]"), ("sealed", "every=3")]:
        with pytest.raises(
            UserError, match=rf"protocol\.{setting[:3]}.* is no setting of protocol={protocol}"
        ):
            one(f"protocol={protocol}", f"protocol.{setting}")
