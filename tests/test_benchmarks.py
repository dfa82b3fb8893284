"""VTAB-1K and few-shot FGVC from end to end, on small data in their exact layouts."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest

from petl_bench.data import manifests
from petl_bench.store import ADAPTER
from tests import trees
from tests.benches import FIXED, ONE, SMALL, Bench
from tests.conftest import call, error_of, events_of, json_lines
from tests.golden import FEW_SHOT_SETS, FewShotSet

GROUPS = {  # of VTAB-1K: arXiv 1910.04867, table 2
    "natural": "cifar caltech101 dtd oxford_flowers102 oxford_iiit_pet svhn sun397",
    "specialized": "patch_camelyon eurosat resisc45 diabetic_retinopathy",
    "structured": "clevr_count clevr_dist dmlab kitti dsprites_loc dsprites_ori smallnorb_azi smallnorb_ele",
}


@contextmanager
def once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """Yield a folder common to all xdist workers, and whether the caller must fill it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not (folder / "ready").is_file()
        (folder / "ready").touch()


FULL = {"vtab_sun397"}
"""Tasks with 1,000 training images: that of most classes; the others have fewer."""


@pytest.fixture(scope="session")
def vtab(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return all 19 tasks of VTAB-1K with small test sets."""
    with once(tmp_path_factory, "benchmark_vtab") as (folder, empty):
        if empty:
            trees.vtab(folder / "data", fewer=set(manifests()) - FULL)
    return Bench(folder / "data", folder / "data-override.yaml", folder / "cache")


SWEEP_VTAB = ["sweep=vtab", "backbone=pocket", *SMALL, *FIXED, "seed=0", "train.batch_size=64"]
SWEEP_VTAB += ["launcher=local"]


@dataclass(frozen=True)
class Swept:
    """Messages, rows and store of a sweep over a benchmark."""

    bench: Bench
    store: Path
    rows: list[dict]
    said: str


@pytest.fixture(scope="session")
def swept(vtab: Bench, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    with once(tmp_path_factory, "benchmark_vtab_sweep") as (folder, empty):
        if empty:
            done = vtab.quickly("sweep", "--store", folder / "store", *SWEEP_VTAB, *vtab.data, "--json")
            assert done.returncode == 0, done.stderr
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
    rows = json_lines((folder / "stdout").read_text())
    return Swept(vtab, folder / "store", rows, (folder / "stderr").read_text())


# VTAB-1K


def test_all_19_tasks_give_a_complete_table(swept: Swept, capsys, monkeypatch) -> None:
    groups = {f"vtab_{name}": group for group, names in GROUPS.items() for name in names.split()}
    assert len(groups) == 19
    assert {row["task"]: row["group"] for row in swept.rows} == groups
    assert len(swept.rows) == 19
    for row in swept.rows:
        test = max(trees.TESTS * manifests()[row["task"]].classes, 20)
        few = {} if row["task"] in FULL else trees.few(manifests()[row["task"]])
        assert (row["n_train"], row["n_test"], row["suite"]) == (sum(few.values()) or 1000, test, "vtab")
        fewer = "".join(f"splits.{split}={count}," for split, count in few.items())
        assert row["data_override"] == f"{fewer}splits.test={test}"
    done = call(capsys, monkeypatch, "report", "--store", swept.store, "--format", "json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    (line,) = content["averages"]
    assert line["tasks"] == "19/19"
    accuracy = {row["task"]: row["acc"] for row in swept.rows}
    means = {
        group: fmean(accuracy[f"vtab_{name}"] for name in names.split()) for group, names in GROUPS.items()
    }
    assert {group: value["mean"] for group, value in line["groups"].items()} == pytest.approx(means)
    assert line["mean_of_groups"]["mean"] == pytest.approx(fmean(means.values()))
    assert line["mean_of_tasks"]["mean"] == pytest.approx(fmean(accuracy.values()))
    assert (line["mean_of_tasks"]["n"], line["mean_of_tasks"]["std"]) == (1, None)
    assert {cell["task"]: cell["mean"] for cell in content["rows"]} == accuracy
    assert any("data sets of this table were altered" in warning for warning in content["warnings"])


def test_the_sweep_warns_of_other_weights_and_other_sizes(swept: Swept) -> None:
    warnings = [line for line in swept.said.splitlines() if line.startswith("warning: ")]
    assert any("published results are of other backbone weights than pocket" in line for line in warnings)
    (sizes,) = [line for line in warnings if "differ from the benchmark" in line]
    assert all(f"{row['task']} ({row['data_override']})" in sizes for row in swept.rows)


def test_the_bundled_suite_needs_no_such_warning(tmp_path: Path, capsys, monkeypatch) -> None:
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", "sweep=demo", "--dry-run")
    assert done.returncode == 0
    assert "warning" not in done.stderr


def test_every_adapter_file_evaluates_to_its_row(swept: Swept) -> None:
    done = swept.bench.petl("eval", "--all", "--store", swept.store, "--json")
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert {line["task"]: line["acc"] for line in lines} == {row["task"]: row["acc"] for row in swept.rows}
    assert all(line["agrees"] is True for line in lines)


def test_a_second_sweep_skips_all_and_changes_nothing(swept: Swept) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.store.rglob("*") if path.is_file()}
    done = swept.bench.petl("sweep", "--store", swept.store, *SWEEP_VTAB, *swept.bench.data, "--json")
    assert done.returncode == 0, done.stderr
    assert f"19 runs: 19 in store {swept.store}, 0 to do" in done.stderr
    by_id = {row["run_id"]: row for row in swept.rows}
    assert {row["run_id"]: row for row in json_lines(done.stdout)} == by_id
    assert {path: path.stat().st_mtime_ns for path in swept.store.rglob("*") if path.is_file()} == before


def test_sun397_keeps_a_head_for_the_class_that_training_lacks(swept: Swept, capsys, monkeypatch) -> None:
    lines = (swept.bench.root / "sun397/train800val200.txt").read_text().splitlines()
    labels = {int(line.rsplit(" ", 1)[1]) for line in lines}
    assert len(labels) == 396  # as in VTAB-1K
    (row,) = [row for row in swept.rows if row["task"] == "vtab_sun397"]
    done = call(capsys, monkeypatch, "inspect", swept.store / row["run_id"] / ADAPTER, "--json")
    (facts,) = json_lines(done.stdout)
    assert facts["classes"] == 397
    assert {tensor["shape"][0] for tensor in facts["tensors"] if tensor["part"] == "head"} == {397}
    assert row["n_test"] == trees.TESTS * 397


def test_one_task_under_the_sealed_protocol(swept: Swept, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(swept.bench.cache))
    arguments = [setting for setting in SWEEP_VTAB if setting not in FIXED]  # sealed is sweep=vtab's own
    arguments += ["task=vtab_patch_camelyon", "protocol.scales=[10,1]", *swept.bench.data]
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    trials = json.loads((tmp_path / row["run_id"] / "search.json").read_text())["trials"]
    assert [trial["scale"] for trial in trials] == [1.0, 10.0]
    assert row["acc_val"] == max(trial["acc_val"] for trial in trials)
    assert (row["protocol"], row["n_train"], row["seconds_search"] > 0) == ("sealed", 80, True)


# Few-shot FGVC


@dataclass(frozen=True)
class Pets(Bench):
    """A few-shot set in the place of oxford-pets."""

    chosen: FewShotSet


@pytest.fixture(scope="module", params=FEW_SHOT_SETS, ids=str)
def fgvc(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pets]:
    chosen = request.param
    with chosen.in_use(), once(tmp_path_factory, f"benchmark_fgvc_{chosen}") as (folder, empty):
        if empty:
            trees.few_shot(folder / "data", chosen)
    with chosen.in_use():
        yield Pets(folder / "data", folder / "data-override.yaml", folder / "cache", chosen)


def test_few_shot_pets_train_on_their_circulated_lists(
    fgvc: Pets, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(fgvc.cache))
    axes = ["task=fgvc_pets", "shots=1,2,4", "split_seed=0,1", "train.epochs=2"]
    axes += [f"train.batch_size={fgvc.chosen.batch_size}"]
    settings = ["sweep=fgvc", "backbone=pocket", *SMALL[:-1], *FIXED, *axes, "launcher=local"]
    done = fgvc.quickly("sweep", "--store", tmp_path, *settings, *fgvc.data, "--json")
    assert done.returncode == 0, done.stderr
    assert "published results are of other backbone weights than pocket" in done.stderr
    rows = json_lines(done.stdout)
    found = {(row["shots"], row["split_seed"]): row["n_train"] for row in rows}
    assert found == {(shots, seed): fgvc.chosen.lines(shots) for shots in (1, 2, 4) for seed in (0, 1)}
    assert len({row["data_fingerprint"] for row in rows}) == 6
    held = fgvc.chosen.held
    for row in rows:
        assert (row["n_test"], row["data_override"]) == (held, f"splits.val={held},splits.test={held}")
        assert row["normalization"] == "imagenet"  # NOAH's recipe: conf/train/fgvc is that of the suite
        losses = [event.value for event in events_of(tmp_path / row["run_id"]).Scalars("train/loss")]
        assert len(losses) == 2
        assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    report = call(capsys, monkeypatch, "report", "--store", tmp_path, "--format", "json")
    averages = json.loads(report.stdout)["averages"]
    assert sorted(line["shots"] for line in averages) == [1, 2, 4]
    means = {line["shots"]: line["mean_of_tasks"]["mean"] for line in averages}
    assert {line["tasks"] for line in averages} == {"1/1"}  # of a part of the suite, which the title names
    cells = {cell["shots"]: cell for cell in json.loads(report.stdout)["rows"] if cell["task"] == "fgvc_pets"}
    for shots in (1, 2, 4):
        expected = fmean(row["acc"] for row in rows if row["shots"] == shots)
        assert means[shots] == pytest.approx(expected)
        assert (cells[shots]["n"], cells[shots]["mean"]) == (2, pytest.approx(expected))
    titles = call(capsys, monkeypatch, "report", "--store", tmp_path).stdout
    assert all(f", {shots}," in titles for shots in ("1 shot", "2 shots", "4 shots"))
    done = call(capsys, monkeypatch, "eval", "--all", "--store", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert [line["agrees"] for line in json_lines(done.stdout)] == [True] * 6


def test_an_edited_few_shot_list_is_refused(fgvc: Pets, tmp_path: Path, capsys, monkeypatch) -> None:
    root, manifest = tmp_path / "data", manifests()["fgvc_pets"]
    shutil.copytree(fgvc.root / manifest.folders[0], root / manifest.folders[0])
    (root / manifest.images[0]).parent.mkdir(parents=True, exist_ok=True)
    (root / manifest.images[0]).symlink_to(fgvc.root / manifest.images[0])
    bench = Bench(root, fgvc.override, fgvc.cache)
    settings = ["task=fgvc_pets", "train=fgvc", f"train.batch_size={fgvc.chosen.batch_size}"]
    plan = ["sweep", "--store", tmp_path / "store", "--dry-run", *ONE[:-2], *settings, *bench.data]
    monkeypatch.setenv("PETL_BENCH_CACHE", str(fgvc.cache))
    assert call(capsys, monkeypatch, *plan).returncode == 0  # as it circulates
    path = root / manifest.folders[0] / "annotations/train_meta.list.num_shot_1.seed_0"
    first, *others, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join([last, *others, first]))
    assert first != last
    plan.remove("--dry-run")
    message = error_of(call(capsys, monkeypatch, *plan))
    assert str(path) in message
    assert "is not the circulated list" in message
    assert not (tmp_path / "store").exists()
