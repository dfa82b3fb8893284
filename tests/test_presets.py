"""Presets: settings that are chosen together, below those that are given one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from petl_bench.config import CONF_DIR, group_config, options, plan
from petl_bench.config.command import differences, overrides_of
from petl_bench.errors import UserError
from petl_bench.types import RunSpec, run_id
from tests.conftest import quickly
from tests.made import WEIGHTS

ONE = ["sweep=none", "task=digits", "bits=1", "scale=1"]


def one(*overrides: str) -> RunSpec:
    (spec,) = plan([*ONE, *overrides]).runs
    return spec


@pytest.mark.parametrize("adapter", ["lora", "linear", "bitfit"])
def test_the_preset_released_changes_nothing(adapter: str) -> None:
    assert one(f"adapter={adapter}", "preset=released") == one(f"adapter={adapter}")


@pytest.mark.parametrize("preset", options("preset"))
@pytest.mark.parametrize("adapter", ["lora", "linear", "houlsby"])
def test_a_preset_stands_for_its_settings(preset: str, adapter: str) -> None:
    """A setting that the method lacks is left out; given one by one it would be refused."""
    found = plan(["sweep=none", f"adapter={adapter}", "scale=1"]).runs[0].adapter.settings
    listed = {
        key: value
        for key, value in group_config("preset", preset).items()
        if not key.startswith("adapter.") or key.removeprefix("adapter.") in found
    }
    given = [f"{key}={value}" for key, value in listed.items()]
    assert one(f"adapter={adapter}", f"preset={preset}") == one(f"adapter={adapter}", *given)


def test_what_is_given_counts_instead_of_the_preset() -> None:
    spec = one("adapter=lora", "preset=compact", "head=linear", "container=safetensors", "start=0.5")
    assert (spec.head, spec.container, spec.start) == ("linear", "safetensors", 0.5)
    assert spec.statistics == "short"


def test_presets_are_an_axis() -> None:
    runs = plan([*ONE, "adapter=lora", "preset=released,compact", "seed=0,1"]).runs
    assert runs == [
        one("adapter=lora", f"preset={preset}", f"seed={seed}")
        for preset in ("released", "compact")
        for seed in (0, 1)
    ]


@pytest.mark.parametrize("adapter", ["lora", "adaptformer"])
def test_a_preset_has_tuned_scales_of_its_own(adapter: str) -> None:
    fixed = ["sweep=none", "protocol=fixed", "bits=1", f"adapter={adapter}"]
    found = plan([*fixed, "task=digits", "preset=compact"])
    assert found.origins[0].scale.startswith("conf/tuned/pocket_compact.yaml ")
    assert found.runs[0].scale == plan([*fixed, "task=digits", "tuned=pocket_compact"]).runs[0].scale
    (origin,) = plan([*fixed, "task=pocket19_digits", "preset=compact"]).origins
    assert origin.scale.startswith("conf/tuned/pocket19.yaml ")  # a suite without such a file


@pytest.mark.parametrize("adapter", ["lora", "linear"])
@pytest.mark.parametrize("protocol", ["fixed", "sealed"])
def test_the_command_of_a_run_names_its_preset(adapter: str, protocol: str) -> None:
    spec = plan(["sweep=none", "task=digits", f"protocol={protocol}", f"adapter={adapter}", "preset=compact"])
    command = overrides_of(spec.runs[0])
    assert "preset=compact" in command
    assert not differences(command, spec.runs[0])
    assert run_id(plan(command).runs[0], WEIGHTS) == run_id(spec.runs[0], WEIGHTS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("strat: 0.1\n", "preset=mine: unknown key 'strat': did you mean 'start'"),
        ("adapter.dropuot: 0\n", "preset=mine: unknown key 'adapter.dropuot'"),
        ("scale: 3\n", "preset=mine: scale stands in conf/tuned, in a file SUITE_mine.yaml"),
        ("start: much\n", "start"),
    ],
)
def test_a_preset_of_a_plug_in_is_checked(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "plugin" / "conf" / "preset" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    done = quickly("sweep", "preset=mine", "--dry-run", "--config-dir", path.parents[2], cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="unknown preset 'compakt': did you mean 'compact'"):
        one("preset=compakt")
    assert (CONF_DIR / "preset" / "released.yaml").read_text().count("\n") == 1
