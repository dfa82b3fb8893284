from __future__ import annotations

import pytest

from petl_bench.errors import UserError, did_you_mean
from petl_bench.registry import Registry


@pytest.fixture
def table() -> Registry[int]:
    table: Registry[int] = Registry("gadget")
    for number, name in enumerate(["lora", "linear", "adaptformer"]):
        table.register(name)(number)
    return table


def test_register_hands_the_entry_back_and_files_it() -> None:
    table: Registry[list[int]] = Registry("gadget")
    entry = [1]
    assert table.register("one")(entry) is entry
    assert table.get("one") is entry


def test_a_name_is_taken_once(table: Registry[int]) -> None:
    with pytest.raises(ValueError, match=r"gadget 'lora' is registered twice"):
        table.register("lora")(9)
    assert table.get("lora") == 0  # the first one stands


def test_names_come_sorted(table: Registry[int]) -> None:
    assert list(table) == ["adaptformer", "linear", "lora"]


def test_a_near_miss_is_answered_with_the_name_meant(table: Registry[int]) -> None:
    with pytest.raises(UserError, match=r"unknown gadget 'adaptfomer': did you mean 'adaptformer'\?"):
        table.get("adaptfomer")


def test_a_far_miss_is_answered_with_all_names(table: Registry[int]) -> None:
    with pytest.raises(UserError, match="known: adaptformer, linear, lora"):
        table.get("zzz")


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UserError, match="none is known"):
        Registry("gadget").get("x")


def test_did_you_mean_offers_several_near_names() -> None:
    hint = did_you_mean("sprites", ["sprites_loc", "sprites_ori", "digits"])
    assert "'sprites_loc'" in hint
    assert "'sprites_ori'" in hint
    assert "digits" not in hint
