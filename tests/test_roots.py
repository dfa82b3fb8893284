"""Stored runs whose data have moved: what `eval`, `compare` and `show` say, and what --root takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import trees
from tests.conftest import error_of, json_lines, quickly, rows_of

SETTINGS = [
    "task=tree",
    "adapter=linear",
    "scale=1",
    "data.images=20",
    "train.epochs=1",
    "train.batch_size=8",
]
NAMES = ("cars", "my pets")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and two own data sets, whose runs state them relative to this folder."""
    home = tmp_path_factory.mktemp("home")
    for shift, name in enumerate(NAMES):
        for label in range(2):
            for number in range(14):
                picture = trees.picture(label, 100 * shift + number, 32)
                trees.save(picture, home / "data" / name / f"class{label}" / f"{number}.png")
        root = f"'data.root=\"data/{name}\"'".strip("'")
        done = quickly(
            "sweep", *SETTINGS, root, "launcher=local", cwd=home, PETL_BENCH_CACHE=str(home / "cache")
        )
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(made, tmp_path / "home", ignore=shutil.ignore_patterns("cache"))


def agreeing(*arguments: object, cwd: Path) -> list[str]:
    """The tasks that `eval --all` evaluates, all in agreement with their rows."""
    done = quickly("eval", "--all", "--json", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert all(line["agrees"] for line in lines)
    return sorted(line["task"] for line in lines)


def test_relative_roots_stay_relative_and_hold_in_their_folder(folder: Path) -> None:
    specs = [json.loads(path.read_text()) for path in (folder / "results").glob("*/spec.json")]
    assert {spec["task"]["place"]["root"] for spec in specs} == {f"data/{name}" for name in NAMES}
    assert agreeing(cwd=folder) == sorted(NAMES)


def test_elsewhere_each_data_set_is_named_with_what_to_give(folder: Path, tmp_path: Path) -> None:
    """Every data set once, and nothing is evaluated by chance on another folder."""
    done = quickly("eval", "--all", "--store", folder / "results", cwd=tmp_path)
    assert done.returncode == 2
    for name, given in zip(NAMES, ("--root cars=DIR", "--root 'my pets'=DIR"), strict=True):
        (line,) = [line for line in done.stderr.splitlines() if f"the data of {name} (1 run)" in line]
        assert f"data/{name} of the folder where the sweep was started, which is not {tmp_path}" in line
        assert line.endswith(given)
    assert done.stderr.splitlines()[-1].startswith("error: 2 of 2 runs ")
    # The folder that holds what the runs state is enough for all of them.
    assert agreeing("--store", folder / "results", "--root", folder, cwd=tmp_path) == sorted(NAMES)


def test_each_data_set_that_moved_is_given_by_name(folder: Path) -> None:
    (folder / "data" / "cars").rename(folder / "autos")
    done = quickly("eval", "--all", "--json", cwd=folder)
    assert done.returncode == 2
    assert [line["task"] for line in json_lines(done.stdout)] == ["my pets"]  # the other one is where it was
    assert "--root cars=DIR" in done.stderr
    assert len(agreeing("--root", "cars=autos", cwd=folder)) == 2
    (folder / "data" / "my pets").rename(folder / "animals")
    both = ["--root", "cars=autos", "--root", "my pets=animals"]
    assert len(agreeing(*both, cwd=folder)) == 2
    run = {row["task"]: row["run_id"] for row in rows_of(folder / "results")}["cars"]
    assert "--root cars=DIR" in error_of(quickly("eval", run, cwd=folder))
    for command in (["show", run, "--classes"], ["compare", run, run]):
        assert "labels cannot be read: the data of cars" in quickly(*command, cwd=folder).stderr
        done = quickly(*command, "--json", "--root", "cars=autos", cwd=folder)
        assert json_lines(done.stdout)[0]["classes"], done.stderr


def test_wrong_roots_are_refused(folder: Path) -> None:
    run = {row["task"]: row["run_id"] for row in rows_of(folder / "results")}["cars"]
    for given, message in {
        ("cars=data/my pets",): "holds another copy of cars",
        ("cas=data/cars",): "did you mean 'cars'",
        ("data/cars", "data/my pets"): "needs the name of its data set: --root NAME=DIR",
        ("cars=nowhere",): "nowhere: no such folder",
        ("cars=",): "names no folder; expected cars=DIR",
        ("cars=data/cars", "cars=elsewhere"): "a folder of cars is given already: data/cars",
    }.items():
        options = [word for text in given for word in ("--root", text)]
        assert message in error_of(quickly("eval", run, *options, cwd=folder)), given


def test_options_that_no_run_has_a_use_for_are_refused(finished_store: Path, tmp_path: Path) -> None:
    run = next(path for path in finished_store.iterdir() if path.is_dir() and not path.name.startswith("."))
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("{}")
    for option, value in (("--override", sizes), ("--root", tmp_path)):
        done = quickly("eval", run, option, value)
        assert f"{option} {value}: " in error_of(done)
        assert "leave it out" in error_of(done)
    for command in (["compare", run, run], ["show", run], ["show", run, "--classes"]):
        said = error_of(quickly(*command, "--root", tmp_path))
        assert said.startswith(f"--root {tmp_path}: ")
        assert said.endswith("leave it out")


def test_a_store_is_refused_where_all_runs_are_paths(finished_store: Path, tmp_path: Path) -> None:
    run = next(path for path in finished_store.iterdir() if path.is_dir() and not path.name.startswith("."))
    file = run / "adapter.safetensors"
    for command in (
        *(["show", run], ["inspect", run], ["inspect", file], ["compare", run, run], ["rerun", run]),
        *(["eval", run], ["eval", file], ["predict", run, tmp_path], ["export", file, "--to", "timm"]),
    ):
        said = error_of(quickly(*command, "--store", tmp_path))
        assert said == f"--store {tmp_path}: has no use, because {command[1]} is a path; leave it out"
    assert quickly("inspect", run, "--store", finished_store).returncode == 0
