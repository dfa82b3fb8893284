"""Declarations of settings: what follows from one declaration follows for any."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import petl_bench
from petl_bench.config import keys, plan
from petl_bench.errors import UserError
from petl_bench.types import (
    COLUMNS,
    AugmentSpec,
    AverageSpec,
    BackboneSpec,
    DataSettings,
    ProtocolSpec,
    RunSettings,
    RunSpec,
    TrainSpec,
    declarations,
    spec_columns,
)
from tests.conftest import json_lines, quickly
from tests.test_specs import specs

DECLARING = (RunSettings, TrainSpec, AugmentSpec, AverageSpec, ProtocolSpec, BackboneSpec, DataSettings)
PACKAGE = Path(petl_bench.__file__).parent


def base() -> RunSpec:
    (spec,) = plan(["sweep=none", "task=digits", "scale=1"]).runs
    return spec


@pytest.mark.parametrize("kind", DECLARING)
def test_every_default_is_allowed_and_every_setting_is_explained(kind: type) -> None:
    for name, known in declarations(kind).items():
        assert known.help.endswith("."), name
        field = next(f for f in dataclasses.fields(kind) if f.name == name)
        if field.default is not dataclasses.MISSING and field.default is not None:
            assert known.allows(field.default), name


def test_the_plan_without_overrides_stands_at_the_declared_defaults() -> None:
    spec = base()
    for name, known in declarations(RunSettings).items():
        assert getattr(spec, name) == (1.0 if name == "scale" else known.default), name


@given(spec=specs, number=st.one_of(st.integers(-3, 40), st.floats(allow_nan=True)))
def test_a_number_out_of_range_is_refused_by_the_key_of_its_setting(spec: RunSpec, number: float) -> None:
    for part, prefix in ((spec, ""), (spec.train, "train."), (spec.train.augment, "train.augment.")):
        for name, known in declarations(type(part)).items():
            value = getattr(part, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or known.allows(number):
                continue
            with pytest.raises(UserError) as error:
                dataclasses.replace(part, **{name: number})
            assert f"{prefix}{name}={number}" in str(error.value)
            assert known.right in str(error.value)


@given(number=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_bounded_setting_allows_a_number_that_is_not_finite(number: float) -> None:
    for kind in DECLARING:
        for name, known in declarations(kind).items():
            default = {f.name: f.type for f in dataclasses.fields(kind)}[name]
            if known.right and "float" in str(default):
                assert not known.allows(number), name


@given(specs)
def test_specs_are_hashable_and_survive_pickling_and_copying(spec: RunSpec) -> None:
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec == copy.deepcopy(spec)
    assert len({again, spec, copy.deepcopy(spec)}) == 1
    with pytest.raises(TypeError, match="cannot be changed"):
        spec.adapter.settings["dropout"] = 0.5


def test_keys_can_all_be_overridden_and_are_listed(tmp_path: Path) -> None:
    listed = json_lines(quickly("ls", "keys", "--json", cwd=tmp_path).stdout)
    assert {"hidden", "train.lr", "train.augment.mixup", "protocol.scales", "data.root"} <= {
        entry["name"] for entry in listed
    }
    assert [(e["name"], e["option"], e["default"]) for e in listed] == [
        (key.name, key.option, key.default) for key in keys()
    ]
    given: dict[str, dict[str, object]] = {}
    for key in keys():
        if (
            key.default in (None, "", {})
            or key.setting.option
            or key.name.startswith(("protocol", "backbone"))
        ):
            continue  # without a value that can be repeated, or of one option of a group
        text = str(key.default).lower() if isinstance(key.default, bool) else key.default
        given.setdefault(key.option, {})[key.name] = text
    assert len(given) > 25  # every adapter with settings, every launcher, and the keys of all runs
    for option, chosen in given.items():
        values = {"scale": 1, "task": "digits"} | dict([option.split("=")] if option else []) | chosen
        plan(["sweep=none", *(f"{name}={value}" for name, value in values.items())])


def test_columns_of_a_spec_are_columns_of_rows() -> None:
    assert set(spec_columns(base())) <= set(COLUMNS)
    assert set(declarations(RunSettings)) <= set(COLUMNS)


TOY = """
    toy: float = setting(
        "An added setting.", 0.5, before=0.5, quiet=True, above=0, most=1, column="row", usual=0.5
    )
"""
PROBE = """
import json, sys
from petl_bench.cli.estimate import SHOWN_WHERE_VARIED
from petl_bench.config import keys, plan
from petl_bench.errors import UserError
from petl_bench.report.settings import ROW_SETTINGS, USUAL
from petl_bench.run.metadata import HYPERPARAMETERS
from petl_bench.types import COLUMNS, run_id, spec_columns
places = (SHOWN_WHERE_VARIED, ROW_SETTINGS, USUAL, HYPERPARAMETERS, COLUMNS)
one = ["sweep=none", "task=digits", "scale=1"]
runs = plan([*one, "toy=0.5,0.25"]).runs
try:
    plan([*one, "toy=2"])
    refused = ""
except UserError as error:
    refused = str(error)
print(json.dumps({
    "ids": [run_id(run, "0" * 64) for run in runs],
    "columns": [spec_columns(run)["toy"] for run in runs],
    "places": ["toy" in place for place in places],
    "listed": [key.default for key in keys() if key.name == "toy"],
    "refused": refused,
}))
"""


def test_a_setting_is_added_by_its_declaration_alone(tmp_path: Path) -> None:
    """A copy of the package gets one more declaration; where it is used would be the second file."""
    shutil.copytree(PACKAGE, tmp_path / "petl_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("conf", "data_manifests"):
        where = PACKAGE / folder if (PACKAGE / folder).is_dir() else PACKAGE.parent / folder
        shutil.copytree(where, tmp_path / folder)
    declaring = tmp_path / "petl_bench" / "types" / "run_settings.py"
    declaring.write_text(declaring.read_text() + TOY)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    spec = base()
    from petl_bench.types import run_id

    assert found["ids"][0] == run_id(spec, "0" * 64)  # older runs keep their identity
    assert found["ids"][1] != found["ids"][0]
    assert found["columns"] == [0.5, 0.25]
    assert all(found["places"])
    assert found["listed"] == [0.5]
    assert found["refused"] == "toy=2.0 is out of range: it must be above 0 and at most 1"
