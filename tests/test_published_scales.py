"""Scales that repositories of methods publish are those of conf/tuned, where they hold."""

from __future__ import annotations

import re

import pytest

from petl_bench.config import group_config, plan
from petl_bench.errors import UserError
from tests import golden

PLACEMENTS = {
    "fact_tt": "adapter=fact_tt",
    "fact_tk": "adapter=fact_tk",
    "convpass": "adapter=convpass",
    "convpass_attn": "adapter=convpass adapter.sites=attention",
    "repblock": "adapter=repadapter",
    "repattn": "adapter=repadapter adapter.attention_only=true",
}
"""Method or placement of a repository -> overrides."""


@pytest.mark.parametrize("method", PLACEMENTS)
def test_published_scales_of_vtab_are_those_of_the_repositories(method: str) -> None:
    axes = ["task=glob(vtab_*)", "hidden=8,32", *PLACEMENTS[method].split()]
    runs = plan(["sweep=none", "protocol=fixed", *axes]).runs
    found = {(run.task.name.removeprefix("vtab_"), run.scale) for run in runs}
    assert found == {(task, each.scale) for (of, task), each in golden.published().items() if of == method}


def test_published_scales_are_noted_with_the_settings_they_were_chosen_with() -> None:
    noted = {}
    for table in group_config("tuned", "vtab")["tables"]:
        if "note" in table:
            attention = table.get("adapter.sites") == "attention" or table.get("adapter.attention_only")
            for task in table["scales"]:
                noted[table["adapter"], bool(attention), task.removeprefix("vtab_")] = table["note"]
    assert len(noted) == len(golden.published())
    for (method, task), published in golden.published().items():
        adapter = {"convpass_attn": "convpass", "repblock": "repadapter", "repattn": "repadapter"}
        note = noted[adapter.get(method, method), method.endswith("attn"), task]
        rank, more = {
            "fact": (published.chosen, ""),
            "conv": ("8", f" adapter.conv={published.chosen}"),  # dim=8 in convpass/vtab/train.py
            "repb": ("8", ""),  # the default of --dim in train.py
            "repa": ("8", ""),
        }[method[:4]]
        assert note == f"chosen with hidden={rank}{more}"


@pytest.mark.parametrize(
    ("overrides", "only"),
    [
        ("adapter=convpass adapter.sites=mlp", "adapter.sites=both or adapter.sites=attention"),
        ("adapter=fact_tk head=binary", "head=linear"),
        ("adapter=adaptformer hidden=4", "hidden=32 or hidden=1"),
        ("adapter=adaptformer hidden=4 head=binary", "hidden=32 or hidden=1"),
    ],
)
def test_a_scale_that_was_published_for_other_settings_is_named(overrides: str, only: str) -> None:
    with pytest.raises(UserError, match=rf"task=vtab_cifar, only for {re.escape(only)}: give one"):
        plan(["sweep=none", "task=vtab_cifar", "protocol=fixed", *overrides.split()])


def test_repadapter_has_published_scales_for_few_shot_sets() -> None:
    runs = plan(["sweep=none", "protocol=fixed", "task=glob(fgvc_*)", "adapter=repadapter"]).runs
    assert [run.scale for run in runs] == [1.0] * 5  # configs/repblock_few_shot in luogen1996/RepAdapter
