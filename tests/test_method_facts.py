"""Facts of adapter methods: what is parsed from the source files is what the imported modules register."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from petl_bench.adapters import ADAPTERS
from petl_bench.config import description, group_config, options
from petl_bench.errors import UserError
from petl_bench.types import MethodFacts, RunSettings, changed_text, completed, declarations, method, methods

MODULE = "petl_bench.types.method_facts"


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_parsed_facts_are_those_of_the_registered_method(name: str) -> None:
    registered, parsed = ADAPTERS.get(name), method(name)
    for fact in dataclasses.fields(MethodFacts):
        assert getattr(parsed, fact.name) == getattr(registered, fact.name), fact.name
    own = dataclasses.fields(registered.config)
    assert {f.name: f.default for f in own} == parsed.defaults == dataclasses.asdict(registered.config())
    assert [f.type for f in own] == [type(default).__name__ for default in parsed.defaults.values()]


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_every_method_and_every_setting_of_it_is_explained_in_one_sentence(name: str) -> None:
    found = method(name)
    sentences = [found.description, *(known.help for known in found.settings.values())]
    assert all(sentence.endswith(".") and sentence.count(". ") == 0 for sentence in sentences), sentences
    recipe = {"train.drop_path", "train.activations"}
    assert found.unused.keys() <= {*declarations(RunSettings), *recipe}
    assert not found.nested or found.nested in found.settings


def test_all_registered_methods_are_found_and_are_the_options_of_the_group() -> None:
    assert list(methods()) == list(ADAPTERS) == options("adapter")
    for name in methods():
        assert group_config("adapter", name) == {"name": name, **method(name).defaults}
        assert description("adapter", name) == method(name).description


def test_an_adapter_is_completed_by_the_defaults_of_its_method() -> None:
    adapter = completed("lora", {"dropout": 0.5})
    assert adapter.settings == {"dropout": 0.5, "share": 1, "allocation": "uniform"}
    assert changed_text(adapter) == "dropout=0.5"
    assert changed_text(completed("lora", {})) == ""
    with pytest.raises(UserError, match=r"unknown adapter 'lroa': did you mean .*'lora'"):
        completed("lroa", {})


SOURCE = '''
@dataclass(frozen=True)
class Base:
    rate: float = 0.5
    """Share of
    something."""
    kind: str = "a"
    """Kind of something."""


@dataclass(frozen=True)
class Config(Base):
    kind: str = {default}


@adapter("toy", description="A toy.", config=Config, group="probe", nested="rate")
def attach(): ...
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in the place of petl_bench/adapters."""
    monkeypatch.setattr(f"{MODULE}.ADAPTERS", tmp_path)
    methods.cache_clear()
    yield tmp_path
    methods.cache_clear()


def test_a_subclass_changes_defaults_and_keeps_order_and_sentences(folder: Path) -> None:
    (folder / "toy.py").write_text(SOURCE.format(default="'b'"))
    (folder / "helper.py").write_text("import torch\n")
    toy = method("toy")
    assert list(toy.defaults.items()) == [("rate", 0.5), ("kind", "b")]
    assert [known.help for known in toy.settings.values()] == ["Share of something.", "Kind of something."]
    assert (toy.group, toy.tokenwise, toy.unused, toy.nested) == ("probe", False, {}, "rate")


def test_a_fact_that_is_no_literal_is_refused_with_its_file(folder: Path) -> None:
    (folder / "toy.py").write_text(SOURCE.format(default="KIND"))
    with pytest.raises(ValueError, match=r"toy\.py: a fact of a method must be a literal of this file"):
        methods()
