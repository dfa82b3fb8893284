"""Sweeps made of several grids: their order, their overrides, and files that are refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl_bench.cli.idle import unused
from petl_bench.config import options, plan
from tests.conftest import json_lines, quickly

AXES = """# @package _global_
# Two grids.
hydra:
  sweeper:
    params:
      seed: 0,1
      task: digits,surfaces
      protocol: fixed
train:
  epochs: 2
"""
TWO = """grids:
- adapter: lora
  hidden: 4,8
  bits: 1,32
- adapter: linear,ssf
  head: linear,bits2
- adapter: lora
  hidden: 2
  bits: 8
"""


ONE = "all runs of a sweep share one value"


def folder(at: Path, grids: str) -> Path:
    """Return a folder of configuration with the sweep `two`."""
    (at / "conf" / "sweep").mkdir(parents=True)
    (at / "conf" / "sweep" / "two.yaml").write_text(AXES + grids)
    return at


def planned(at: Path, *overrides: str) -> list[tuple[object, ...]]:
    """Return seed, task, adapter, hidden, bits and head of the planned runs."""
    done = quickly("sweep", "--dry-run", "--json", "--config-dir", at, "sweep=two", *overrides, cwd=at)
    names = ("seed", "task", "adapter", "hidden", "bits", "head")
    return [tuple(row[name] for name in names) for row in json_lines(done.stdout)]


def test_a_sweep_of_grids_is_their_union_ordered_by_the_axes_of_the_sweep(tmp_path: Path) -> None:
    own = [
        *[("lora", hidden, bits, "linear") for hidden in (4, 8) for bits in (1, 32)],
        *[(adapter, 0, 32, head) for adapter in ("linear", "ssf") for head in ("linear", "bits2")],
        ("lora", 2, 8, "linear"),
    ]
    expected = [(seed, task, *run) for seed in (0, 1) for task in ("digits", "surfaces") for run in own]
    assert planned(folder(tmp_path, TWO)) == expected


def test_overrides_replace_axes_of_all_grids_and_choose_among_methods(tmp_path: Path) -> None:
    at = folder(tmp_path, TWO)
    found = planned(at, "seed=5", "task=digits", "bits=1", "adapter=ssf,lora", "scale=1")
    assert found == [
        *[(5, "digits", "lora", hidden, 1, "linear") for hidden in (4, 8)],
        *[(5, "digits", "ssf", 0, 32, head) for head in ("linear", "bits2")],
        (5, "digits", "lora", 2, 1, "linear"),
    ]


@pytest.mark.parametrize(
    ("grids", "overrides", "message"),
    [
        (TWO, ["adapter=houlsby"], "sweep=two has no adapter=houlsby: it has linear, lora, ssf"),
        ("grids: {adapter: lora}\n", [], "conf/sweep/two.yaml: grids must be a list"),
        ("grids:\n- bits: 1\n", [], "conf/sweep/two.yaml: grids: a grid states no adapter"),
        (
            "grids:\n- {adapter: lora, bits: 1}\n- {adapter: lora}\n",
            [],
            "the grids of adapter=lora must have the same axes",
        ),
        ("grids:\n- {adapter: lora, widths: 3}\n", [], "unknown key 'widths'"),
        ("grids:\n- {adapter: lora, head: [linear]}\n", [], "unknown head '[linear]': did you mean 'linear'"),
        ("grids:\n- {adapter: lorra}\n", [], "unknown adapter 'lorra': did you mean 'lora'"),
        ("grids: []\n", [], "conf/sweep/two.yaml: grids must be a list"),
        ("grids:\n", [], "conf/sweep/two.yaml: grids must be a list"),
        ("grids:\n- {adapter: [lora]}\n", [], "adapter: [lora]: write names, as in adapter: lora,linear"),
        ("grids:\n- {adapter: lora, seed: 1}\n", [], "cannot state seed, which belongs to the whole sweep"),
        ("grids:\n- {adapter: lora, sweep: demo}\n", [], "cannot state sweep"),
        ("grid:\n- {adapter: lora}\n", [], "two.yaml: unknown key 'grid': did you mean 'grids'"),
        ("grids:\n- {adapter: lora, launcher: local}\n- {adapter: linear, launcher: pool}\n", [], ONE),
        (TWO, ["launcher.workers=1,2"], ONE),
        (
            "head: {name: linear}\n",
            ["head=binary"],
            "two.yaml: head: options are chosen by an axis, head: NAME",
        ),
        ("preset: compact\n", [], "two.yaml: preset: options are chosen by an axis"),
        ("task: surfaces\n", [], "two.yaml: task: options are chosen by an axis"),
        ("backbone: pocket\n", [], "two.yaml: backbone: options are chosen by an axis"),
        ("defaults: [frontier]\n", [], "two.yaml: unknown key 'defaults'"),
        ("adapter: {rank: 2}\n", ["adapter=linear"], "adapter.rank: is no setting of adapter=linear"),
        ("train.lr: 1\n", [], "FILE: train.lr: write it in its group, as train: {lr: 1}"),
        ("bits: 3x\n", [], "FILE: bits='3x': expected a whole number"),
        (
            "bits: 1,2\n",
            [],
            "expected a whole number; several values are an axis, under hydra.sweeper.params",
        ),
        ("grids:\n- {adapter: lora, hidden: x}\n", [], "FILE: hidden='x': expected a whole number"),
        ("grids:\n- {adapter: lora, bits: 'range(0)'}\n", [], "FILE: 'bits=range(0)' matches nothing"),
        ("grids:\n- {adapter: lora, head: two}\n", [], "FILE: unknown head 'two'"),
        ("grids:\n- {adapter: lora, bits: '1,,2'}\n", [], "FILE: override 'bits=1,,2' cannot be read"),
        ("  augment: {mixup: -1}\n", [], "FILE: train.augment.mixup=-1.0 is out of range"),
        (TWO, ["bits=range(0)"], "error: 'bits=range(0)' matches nothing"),
        (TWO, ["head=two"], "error: unknown head 'two'"),
        (TWO, ["bits=1,,2"], "error: override 'bits=1,,2' cannot be read"),
        ("bits: 3x\n", ["bits=4x"], "error: bits='4x': expected a whole number"),
    ],
)
def test_refused(tmp_path: Path, grids: str, overrides: list[str], message: str) -> None:
    at = folder(tmp_path, grids)
    message = message.replace("FILE", str(at / "conf" / "sweep" / "two.yaml"))
    done = quickly("sweep", "--dry-run", "--config-dir", at, "sweep=two", *overrides, cwd=at)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_grid_chooses_methods_by_a_pattern(tmp_path: Path) -> None:
    found = planned(folder(tmp_path, "grids:\n- adapter: glob(ss*)\n"), "seed=0", "task=digits")
    assert found == [(0, "digits", "ssf", 0, 32, "linear")]


def test_settings_of_a_sweep_hold_for_all_options_of_their_group(tmp_path: Path) -> None:
    """Options that the command line chooses keep what the file of the sweep states."""
    folder(tmp_path, "adapter: {dropout: 0.25}\n")
    given = ["adapter=lora,adaptformer", "task=digits", "seed=0", "--config-dir", tmp_path]
    done = quickly("sweep", "--cfg", "--json", "sweep=two", *given, cwd=tmp_path)
    found = [row["adapter"]["settings"]["dropout"] for row in json_lines(done.stdout)]
    assert found == [0.25, 0.25]


def _warnings(at: Path, *overrides: str) -> str:
    done = quickly("sweep", "--dry-run", "--config-dir", at, "sweep=two", *overrides, cwd=at)
    assert done.returncode == 0
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        (
            "grids:\n- {adapter: linear, hidden: 4}\n",
            "hidden=4 has no effect: the adapter has no hidden units",
        ),
        (
            "grids:\n- {adapter: 'linear,ssf', bits: '1,4'}\n",
            "bits=1,4 has no effect: the adapter has no matrices",
        ),
        (
            "train: {average: {every: 2}}\n",
            "train.average.every=2 has no effect: train.average.checkpoints is 0",
        ),
        ("data: {root: /x}\n", "data.root=/x has no effect: the images of bundled tasks are in the package"),
    ],
)
def test_what_a_sweep_states_without_effect_is_named(tmp_path: Path, grids: str, said: str) -> None:
    """As the same override would be, unless overrides leave only some of the runs of the file."""
    at = folder(tmp_path, "")
    file = at / "conf" / "sweep" / "two.yaml"
    file.write_text((AXES if "train:" not in grids else AXES.partition("train:")[0]) + grids)
    assert f"warning: {file}: {said}" in _warnings(at, "seed=3")
    assert "has no effect" not in _warnings(at, "task=digits")


@pytest.mark.parametrize("sweep", options("sweep"))
def test_bundled_sweeps_state_nothing_without_effect(sweep: str) -> None:
    planned = plan([f"sweep={sweep}"])
    assert planned.by_file or sweep == "none"
    assert unused(planned.by_file, planned.runs) == []


@settings(max_examples=10)
@given(epochs=st.integers(1, 12))
def test_fewer_epochs_shorten_the_warm_up_where_a_sweep_states_them_too(epochs: int) -> None:
    """As the same override does: the recipe of the bundled tasks has 6 epochs, 2 of them of warm-up."""
    with tempfile.TemporaryDirectory() as at:
        folder(Path(at), "").joinpath("conf/sweep/two.yaml").write_text(AXES.replace("2\n", f"{epochs}\n"))
        mine = ["--config-dir", at, "task=digits", "seed=0", "adapter=linear"]
        one, other = (
            quickly("sweep", "--cfg", "--json", *mine, *chosen, cwd=Path(at))
            for chosen in (["sweep=two"], ["sweep=none", "protocol=fixed", f"train.epochs={epochs}"])
        )
    (row,), (as_override,) = json_lines(one.stdout), json_lines(other.stdout)
    assert row["train"]["epochs"] == epochs
    assert row["train"]["warmup_epochs"] == (2 if epochs >= 4 else 2 * epochs // 6)
    assert row["train"] == as_override["train"]


def test_a_lag_that_a_sweep_states_stays_where_its_warm_up_is_shortened(tmp_path: Path) -> None:
    """The recipe `vtab` has 100 epochs, 10 of them of warm-up, and a lag of 1: a tenth of 8 epochs is 0."""
    at = folder(tmp_path, "")
    at.joinpath("conf/sweep/two.yaml").write_text(AXES.replace("2\n", "8\n  schedule_lag: 3\n"))
    given = ["sweep=two", "task=digits", "seed=0", "train=vtab", "adapter=linear", "--config-dir", at]
    (row,) = json_lines(quickly("sweep", "--cfg", "--json", *given, cwd=at).stdout)
    assert [row["train"][key] for key in ("epochs", "warmup_epochs", "schedule_lag")] == [8, 0, 3]


@pytest.mark.parametrize("text", [AXES.partition("\n")[2], "# Mine.\n" + AXES, "\ufeff" + AXES])
def test_a_sweep_whose_settings_would_have_no_effect_is_refused(tmp_path: Path, text: str) -> None:
    """Hydra reads the package of a file from its first line alone, which no byte order mark may precede."""
    (folder(tmp_path, "") / "conf" / "sweep" / "two.yaml").write_text(text)
    done = quickly("sweep", "--dry-run", "--config-dir", tmp_path, "sweep=two", cwd=tmp_path)
    assert done.returncode == 2
    assert "its first line must be `# @package _global_`" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        ("train", "# @package _global_\nepochs: 3\n", "@package is for the files of sweeps"),
        ("train", "epochs: 3\n", "missing batch_size"),
        ("tuned", "tables:\n- {adapter: lora, hiden: 3, scales: {digits: 1}}\n", "unknown key 'hiden'"),
        ("tuned", "tables:\n- {adapter: lora, lr: {digits: 1}}\n", "unknown key 'lr': did you mean 'lrs'"),
        (
            "tuned",
            "tables:\n- {adapter: bitfit, lrs: {digit: 1}}\n",
            "unknown task 'digit': did you mean 'digits'",
        ),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    tmp_path: Path, group: str, text: str, message: str
) -> None:
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    given = ["sweep=none", "task=digits", "adapter=lora", "protocol=fixed", f"{group}=mine"]
    done = quickly("sweep", "--dry-run", "--config-dir", tmp_path, *given, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("tasks", ["vtab_cifar", "fgvc_pets", "pocket19_digits", "digits,vtab_cifar"])
def test_tasks_of_other_suites_have_no_axes_of_the_bundled_tasks(tasks: str) -> None:
    """The short training of the sweep `default` is none for them."""
    assert (
        plan([f"task={tasks}", "data.root=x"]).runs
        == plan(["sweep=none", f"task={tasks}", "data.root=x"]).runs
    )


def test_each_run_can_be_planned_alone() -> None:
    found = plan(["sweep=frontier", "seed=1", "task=surfaces"])
    for spec, lines in list(zip(found.runs, found.alone, strict=True))[::7]:
        assert plan(lines).runs == [spec]
