"""Plug-ins: folders of `--config-dir` and installed packages; `tests/plugin` has something of each kind."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import petl_bench
from petl_bench import plugins
from petl_bench.config import options, plan
from petl_bench.errors import UserError
from petl_bench.plugins.modules import read_module
from petl_bench.store import ADAPTER
from petl_bench.types import run_id, spec_to_dict
from tests import trees
from tests.conftest import error_of, json_lines, quickly, rows_of
from tests.made import WEIGHTS

PLUGIN = Path(__file__).with_name("plugin")
LISTED = """
name: leaves
suite: garden
group: natural
classes: 2
source: listed
folders: [leaves]
splits: {train: 32, val: 8, test: 8}
metric: accuracy
resize: stretch
"""
RUN = ["sweep=none", "task=digits_again", "adapter=plain_lora", "bits=2", "quantizer=even", "head=unbiased"]
RUN += ["train=brief", "scale=1"]


@pytest.fixture(autouse=True)
def _without_plugins_afterwards() -> Iterator[None]:
    yield
    plugins.use(())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a method, a quantizer, a head, a task and a recipe of the plug-in."""
    store = tmp_path_factory.mktemp("plugins") / "store"
    done = quickly("sweep", "--config-dir", PLUGIN, *RUN, "launcher=local", "--store", store)
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the plug-in that a test may change."""
    return Path(shutil.copytree(PLUGIN, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__")))


def test_a_row_states_name_version_and_digest_of_the_plugin(store: Path, copy: Path) -> None:
    (row,) = rows_of(store)
    plugins.use([PLUGIN])
    (known,) = plugins.active()
    assert row["plugins"] == f"plugin 1.2 {known.digest}"
    assert all(row[f"source_{part}"] for part in ("adapter", "quantizer", "head"))
    assert (row["adapter"], row["recipe_name"].split()[0]) == ("plain_lora", "brief")
    plugins.use([copy])
    assert plugins.active()[0].digest == known.digest  # wherever the folder is
    (copy / "plugins" / "_shared.py").write_text("RATE = 0.25\n")
    plugins.use([copy])
    assert plugins.active()[0].digest != known.digest


def test_the_file_alone_is_evaluated_with_the_plugin_and_refused_without(store: Path, tmp_path: Path) -> None:
    (row,) = rows_of(store)
    shutil.copy(store / row["run_id"] / ADAPTER, tmp_path / "a.safetensors")
    done = quickly("eval", tmp_path / "a.safetensors", "--json", PETL_BENCH_CONFIG=str(PLUGIN))
    assert json_lines(done.stdout)[0]["acc"] == row["acc"]
    missing = "was made with plug-in plugin 1.2, which is not in use: name its folder by --config-dir"
    for command in (["eval"], ["predict", tmp_path], ["export", tmp_path / "b.onnx", "--to", "onnx"]):
        name, *rest = command
        said = error_of(quickly(name, tmp_path / "a.safetensors", *rest))
        assert said.startswith(f"{tmp_path / 'a.safetensors'}: {missing}"), said
    assert missing in error_of(quickly("rerun", row["run_id"], "--store", store)).replace(
        row["plugins"], "plugin 1.2"
    )
    with pytest.raises(UserError, match=missing):
        petl_bench.load(tmp_path / "a.safetensors")
    petl_bench.use_plugins(PLUGIN)
    assert len(petl_bench.load(tmp_path / "a.safetensors").class_names) == 10


def test_a_store_is_read_without_the_plugin(store: Path) -> None:
    (row,) = rows_of(store)
    assert "plain_lora" in quickly("report", "--store", store).stdout
    assert quickly("store", "check", "--store", store).returncode == 0
    assert "plain_lora" in quickly("store", "ls", "--store", store).stdout
    shown = quickly("show", row["run_id"], "--store", store)
    assert "which is not in use" in shown.stdout
    with_it = quickly("show", row["run_id"], "--store", store, "--config-dir", PLUGIN).stdout
    (command,) = [line for line in with_it.splitlines() if line.startswith("  petl-bench sweep")]
    assert f"--config-dir {PLUGIN}" in command
    assert "train=brief" in command


def test_a_launcher_a_layout_and_a_form_of_a_report(copy: Path, tmp_path: Path) -> None:
    """The runs of a task in a layout of its own, executed in the order of a launcher of its own."""
    (copy / "data_manifests" / "leaves.yaml").write_text(LISTED)
    leaves = tmp_path / "data" / "leaves"
    trees.vtab_task(leaves, 2, {"train": 32, "val": 8, "test": 8})
    names = {"train800": "train", "val200": "val", "train800val200": "both", "test": "test"}
    (leaves / "lists").mkdir()
    for old, new in names.items():
        shutil.move(leaves / f"{old}.txt", leaves / "lists" / f"{new}.txt")
    arguments = ["sweep=none", "task=leaves", "adapter=linear", "train=brief", "seed=0,1"]
    arguments += [f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}"]
    arguments += ["launcher=backwards", "launcher.loudly=true", "--store", tmp_path / "store"]
    done = quickly("sweep", "--config-dir", copy, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "the last run comes first" in done.stderr
    rows = json_lines(done.stdout)
    assert [row["seed"] for row in rows] == [1, 0]
    assert all(row["plugins"].startswith("mine 1.2 ") for row in rows)
    form = ("report", "--store", tmp_path / "store", "--format", "brief")
    assert quickly(*form, "--config-dir", copy).stdout == "runs: 2\n"
    assert "unknown format 'brief'" in error_of(quickly(*form))
    assert "unknown launcher 'backwards'" in error_of(quickly("sweep", "launcher=backwards"))


def test_listings_mark_what_comes_from_a_plugin() -> None:
    kinds = {"tasks": "digits_again", "heads": "unbiased", "quantizers": "even", "train": "brief"}
    kinds |= {"launchers": "backwards"}
    for kind, name in (kinds | {"adapters": "plain_lora"}).items():
        lines = json_lines(quickly("ls", kind, "--json", "--config-dir", PLUGIN).stdout)
        assert {line["name"]: line["plugin"] for line in lines if "plugin" in line} == {name: "plugin 1.2"}
        assert "(plug-in plugin 1.2)" in quickly("ls", kind, name, "--config-dir", PLUGIN).stdout
    (held,) = json_lines(quickly("ls", "plugins", "--json", "--config-dir", PLUGIN).stdout)
    assert (held["name"], held["version"], held["folder"]) == ("plugin", "1.2", str(PLUGIN))
    assert {"adapter plain_lora", "head unbiased", "conf/train/brief.yaml"} <= {*held["adds"]}
    assert quickly("ls", "plugins").stdout == ""


def test_runs_that_use_none_are_the_same_runs() -> None:
    overrides = ["sweep=pocket", "adapter=glob(*)", "task=digits", "scale=1", "seed=0"]
    before = [run_id(spec, WEIGHTS) for spec in plan(overrides).runs]
    plugins.use([PLUGIN])
    after = {run_id(spec, WEIGHTS): spec.adapter.name for spec in plan(overrides).runs}
    assert [i for i, name in after.items() if name != "plain_lora"] == before
    assert len(after) == len(before) + 2  # the globs see the plug-in's method


def test_what_was_planned_with_a_plugin_is_not_known_without() -> None:
    plugins.use([PLUGIN])
    assert json.dumps(spec_to_dict(plan(RUN).runs[0]))
    plugins.use(())
    with pytest.raises(UserError, match="unknown adapter 'plain_lora'"):
        plan(["sweep=none", "task=digits", "adapter=plain_lora"])
    assert "plain_lora" not in options("adapter")


def test_the_digest_covers_files_that_others_import(copy: Path) -> None:
    plugins.use([copy])
    digest = plugins.active()[0].digest
    also(copy, "plugins/_parts/a.py", "X = 1\n")
    found = set()
    for text in ("X = 1\n", "X = 2\n"):
        also(copy, "plugins/_parts/a.py", text)
        plugins.use([copy])
        found.add(plugins.active()[0].digest)
    assert len(found - {digest}) == 2


@given(
    st.text(max_size=20),
    st.sampled_from(["HEADS", "heads.HEADS", "CODEBOOKS", "FAMILIES"]),
    st.integers(0, 5),
)
def test_every_literal_name_is_found_in_its_line(name: str, table: str, lines: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_text("\n" * lines + f"{table}.register({name!a})(None)\n")
        (held,) = read_module(path, "a").registrations
    assert (held.table, held.name, held.line) == (table.rpartition(".")[2], name, lines + 1)


def also(copy: Path, path: str, text: str) -> None:
    (copy / path).parent.mkdir(parents=True, exist_ok=True)
    (copy / path).write_text(text)


def test_an_installed_package_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution as an installer leaves it: files, metadata, entry points."""
    site = tmp_path / "site"
    shutil.copytree(PLUGIN / "plugins", site / "garden", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conf", "data_manifests"):
        shutil.copytree(PLUGIN / name, site / "garden" / name)
    about = site / "garden_methods-3.1.dist-info"
    also(about, "METADATA", "Metadata-Version: 2.1\nName: garden-methods\nVersion: 3.1\n")
    also(about, "entry_points.txt", "[petl_bench.plugins]\ngarden = garden\nlost = no_such_module\n")
    monkeypatch.syspath_prepend(str(site))
    done = quickly("sweep", *RUN, "launcher=local", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "store")
    plugins.use(())
    assert row["plugins"] == f"garden-methods 3.1 {plugins.active()[0].digest}"
    (warning,) = [line for line in done.stderr.splitlines() if "lost" in line]
    assert warning.startswith(
        "warning: plug-in garden-methods: its entry point lost = no_such_module cannot be imported: "
    )
    monkeypatch.undo()
    message = error_of(quickly("eval", tmp_path / "store" / row["run_id"]))
    assert "was made with plug-in garden-methods 3.1, which is not in use" in message
