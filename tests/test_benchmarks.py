"""The benchmarks from end to end: data in their exact layouts, the real commands, tables, evaluation."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from petl_bench.config import manifests
from petl_bench.store import ADAPTER, ROW
from tests import trees
from tests.conftest import call, error_of, json_lines, petl, pick, rows_of

GOLDEN = Path(os.environ.get("PETL_BENCH_GOLDEN", Path(__file__).parents[2] / "shared/golden"))
GROUPS = {  # of VTAB-1K: arXiv 1910.04867, table 2
    "natural": "cifar caltech101 dtd oxford_flowers102 oxford_iiit_pet svhn sun397",
    "specialized": "patch_camelyon eurosat resisc45 diabetic_retinopathy",
    "structured": "clevr_count clevr_dist dmlab kitti dsprites_loc dsprites_ori smallnorb_azi smallnorb_ele",
}
SMALL = ["adapter=adaptformer", "bits=1", "hidden=4", "train.epochs=1"]
FIXED = ["protocol=fixed", "scale=1"]
ONE = ["sweep=none", *SMALL, *FIXED, "train.batch_size=32", "launcher=serial"]


@dataclass(frozen=True)
class Bench:
    """Data in the layout of a benchmark, the file that says their sizes, and their cache."""

    root: Path
    override: Path | None
    cache: Path

    @property
    def data(self) -> list[str]:
        """Overrides that name the data."""
        return [f"data.root={self.root}", f"data.override={self.override or ''}"]

    @property
    def environment(self) -> dict[str, str]:
        return {"PETL_BENCH_CACHE": str(self.cache)}

    def petl(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return petl(*arguments, **self.environment)


@contextmanager
def once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all xdist workers share, and whether it is still to be filled."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not (folder / "ready").is_file()
        (folder / "ready").touch()


@pytest.fixture(scope="session")
def vtab(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """All 19 tasks."""
    with once(tmp_path_factory, "benchmark_vtab") as (folder, empty):
        if empty:
            trees.vtab(folder / "data")
    return Bench(folder / "data", folder / "data-override.yaml", folder / "cache")


SWEEP_VTAB = ["sweep=vtab", "backbone=pocket", *SMALL, *FIXED, "seed=0", "train.batch_size=64"]


@dataclass(frozen=True)
class Swept:
    """What a sweep of a benchmark said, and its store."""

    bench: Bench
    store: Path
    rows: list[dict]
    said: str


@pytest.fixture(scope="session")
def swept(vtab: Bench, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    with once(tmp_path_factory, "benchmark_vtab_sweep") as (folder, empty):
        if empty:
            done = vtab.petl("sweep", "--store", folder / "store", *SWEEP_VTAB, *vtab.data, "--json")
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
        assert (row["n_train"], row["n_test"], row["suite"]) == (1000, test, "vtab")
        assert row["data_override"] == f"splits.test={test}"
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
    assert any("altered data sets" in warning for warning in content["warnings"])


def test_the_sweep_warns_of_other_weights_and_other_sizes(swept: Swept) -> None:
    warnings = [line for line in swept.said.splitlines() if line.startswith("warning: ")]
    assert any("published rows were made with other weights than pocket" in line for line in warnings)
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
    arguments += ["task=vtab_patch_camelyon", "protocol.scales=[10,1]", "launcher=serial", *swept.bench.data]
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    trials = json.loads((tmp_path / row["run_id"] / "search.json").read_text())["trials"]
    assert [trial["scale"] for trial in trials] == [1.0, 10.0]
    assert row["acc_val"] == max(trial["acc_val"] for trial in trials)
    assert (row["protocol"], row["n_train"], row["seconds_search"] > 0) == ("sealed", 1000, True)


# Few-shot FGVC

PETS = "oxford-pets"
HELD = 60


@pytest.fixture(scope="session")
def fgvc(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """oxford-pets with the circulated training lists; val and test cut short."""
    if not (GOLDEN / "noah-few-shot" / PETS).is_dir():
        pytest.skip(f"no circulated few-shot lists in {GOLDEN}")
    with once(tmp_path_factory, "benchmark_fgvc") as (folder, empty):
        if empty:
            trees.few_shot(folder / "data", GOLDEN / "noah-few-shot", [PETS], HELD)
    return Bench(folder / "data", folder / "data-override.yaml", folder / "cache")


def test_few_shot_pets_train_on_their_circulated_lists(
    fgvc: Bench, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(fgvc.cache))
    axes = ["task=fgvc_pets", "shots=1,2,4", "split_seed=0,1", "train.epochs=2"]
    settings = ["sweep=fgvc", "backbone=pocket", *SMALL[:-1], *FIXED, *axes]
    done = fgvc.petl("sweep", "--store", tmp_path, *settings, *fgvc.data, "--json")
    assert done.returncode == 0, done.stderr
    assert "published rows were made with other weights than pocket" in done.stderr
    rows = json_lines(done.stdout)
    with (GOLDEN / "noah-few-shot-lists.csv").open() as file:
        lines = {line["file"]: int(line["lines"]) for line in csv.DictReader(file) if line["dataset"] == PETS}
    assert lines["train_meta.list.num_shot_1.seed_0"] == 74  # each of the 37 images twice
    found = {(row["shots"], row["split_seed"]): row["n_train"] for row in rows}
    assert found == {
        (shots, seed): lines[f"train_meta.list.num_shot_{shots}.seed_{seed}"]
        for shots in (1, 2, 4)
        for seed in (0, 1)
    }
    assert len({row["data_fingerprint"] for row in rows}) == 6
    for row in rows:
        assert (row["n_test"], row["data_override"]) == (HELD, f"splits.val={HELD},splits.test={HELD}")
        assert row["normalization"] == "imagenet"  # NOAH's recipe: conf/train/fgvc is that of the suite
        events = EventAccumulator(str(tmp_path / row["run_id"]))
        events.Reload()
        losses = [event.value for event in events.Scalars("train/loss")]
        assert len(losses) == 2
        assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    report = call(capsys, monkeypatch, "report", "--store", tmp_path, "--format", "json")
    averages = json.loads(report.stdout)["averages"]
    assert sorted(line["shots"] for line in averages) == [1, 2, 4]
    for line in averages:
        # Two splits of one of five sets: no mean hides the other four.
        assert (line["tasks"], line["mean_of_tasks"]["mean"]) == ("1/5", None)
    cells = {cell["shots"]: cell for cell in json.loads(report.stdout)["rows"] if cell["task"] == "fgvc_pets"}
    for shots in (1, 2, 4):
        expected = fmean(row["acc"] for row in rows if row["shots"] == shots)
        assert (cells[shots]["n"], cells[shots]["mean"]) == (2, pytest.approx(expected))
    titles = call(capsys, monkeypatch, "report", "--store", tmp_path).stdout
    assert all(f", {shots} shots" in titles for shots in (1, 2, 4))
    done = call(capsys, monkeypatch, "eval", "--all", "--store", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert [line["agrees"] for line in json_lines(done.stdout)] == [True] * 6


def test_an_edited_few_shot_list_is_refused(fgvc: Bench, tmp_path: Path, capsys, monkeypatch) -> None:
    root, manifest = tmp_path / "data", manifests()["fgvc_pets"]
    shutil.copytree(fgvc.root / manifest.folders[0], root / manifest.folders[0])
    (root / manifest.images[0]).parent.mkdir(parents=True, exist_ok=True)
    (root / manifest.images[0]).symlink_to(fgvc.root / manifest.images[0])
    bench = Bench(root, fgvc.override, fgvc.cache)
    settings = ["task=fgvc_pets", "train=fgvc", "train.batch_size=64"]
    plan = ["sweep", "--store", tmp_path / "store", "--dry-run", *ONE[:-2], *settings, *bench.data]
    monkeypatch.setenv("PETL_BENCH_CACHE", str(fgvc.cache))
    assert call(capsys, monkeypatch, *plan).returncode == 0  # as it circulates
    path = root / manifest.folders[0] / "annotations/train_meta.list.num_shot_1.seed_0"
    first, *others, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join([last, *others, first]))
    assert first != last
    plan.remove("--dry-run")
    message = error_of(call(capsys, monkeypatch, *plan))
    assert f"{path} is not the circulated list" in message
    assert not (tmp_path / "store").exists()


# Data that are not as they should be

SIZES = {"train": 96, "val": 32, "test": 24}


@pytest.fixture
def kitti(tmp_path: Path) -> Bench:
    """One small task of VTAB."""
    trees.vtab_task(tmp_path / "data/kitti", 4, SIZES)
    override = tmp_path / "override.yaml"
    override.write_text(yaml.safe_dump({"vtab_kitti": {"splits": SIZES}}))
    return Bench(tmp_path / "data", override, tmp_path / "cache")


def no_root(bench: Bench) -> str:
    shutil.rmtree(bench.root)
    return f"data.root={bench.root}: no such folder"


def no_task_folder(bench: Bench) -> str:
    (bench.root / "kitti").rename(bench.root / "city")
    return f"{bench.root}: holds no folder for vtab_kitti"


def a_line_too_few(bench: Bench) -> str:
    path = bench.root / "kitti/val200.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return f"{path} has 31 images, not 32"


def a_line_too_many(bench: Bench) -> str:
    path = bench.root / "kitti/test.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    return f"{path} has 25 images, not 24"


def no_list(bench: Bench) -> str:
    path = bench.root / "kitti/train800val200.txt"
    path.unlink()
    return f"{path}: the list file is not there"


def no_image(bench: Bench) -> str:
    path = bench.root / "kitti/images/test/000007.jpg"
    path.unlink()
    return f"{path}: is not there"


def a_label_out_of_range(bench: Bench) -> str:
    path = bench.root / "kitti/test.txt"
    path.write_text(path.read_text().replace(" 3\n", " 4\n", 1))
    return "labels go from 0 to 4, not from 0 to 3"


DAMAGES = [no_root, no_task_folder, a_line_too_few, a_line_too_many, no_list, no_image, a_label_out_of_range]


@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_data_stop_a_sweep_before_its_first_run(
    damage: Callable[[Bench], str], kitti: Bench, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(kitti.cache))
    said = damage(kitti)
    arguments = ["sweep", "--store", tmp_path / "store", *ONE, "task=digits,vtab_kitti", *kitti.data]
    message = error_of(call(capsys, monkeypatch, *arguments))
    assert said in message
    assert "vtab_kitti" in message or "kitti/" in message
    assert not (tmp_path / "store").exists()


def test_a_benchmark_that_is_not_there_is_refused_in_a_new_process(tmp_path: Path) -> None:
    arguments = ["sweep=vtab", "backbone=pocket", f"data.root={tmp_path / 'nowhere'}"]
    done = petl("sweep", "--store", tmp_path / "store", *arguments, PETL_BENCH_CACHE=str(tmp_path / "cache"))
    message = error_of(done)
    assert f"data.root={tmp_path / 'nowhere'}: no such folder" in message
    assert not (tmp_path / "store").exists()


def test_data_may_move_but_not_change(kitti: Bench, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(kitti.cache))
    store = tmp_path / "store"
    # In a process of its own: the one that evaluates must not have seen the data.
    swept = kitti.petl("sweep", "--store", store, *ONE, "task=vtab_kitti", *kitti.data)
    assert swept.returncode == 0, swept.stderr
    (row,) = rows_of(store)
    moved = tmp_path / "elsewhere"
    kitti.root.rename(moved)
    evaluate = ["eval", row["run_id"], "--store", store, "--json"]
    message = error_of(call(capsys, monkeypatch, *evaluate))
    assert str(kitti.root) in message
    done = call(capsys, monkeypatch, *evaluate, "--root", moved)
    assert done.returncode == 0, done.stderr
    (line,) = json_lines(done.stdout)
    assert (line["acc"], line["agrees"], line["data_fingerprint"]) == (
        row["acc"],
        True,
        row["data_fingerprint"],
    )
    # The same plan with the data elsewhere is the same run.
    again = Bench(moved, kitti.override, kitti.cache)
    done = call(capsys, monkeypatch, "sweep", "--store", store, *ONE, "task=vtab_kitti", *again.data)
    assert "1 run: 1 in store" in done.stderr
    image = moved / "kitti/images/test/000003.jpg"
    trees.save(trees.picture(1, 99_999, 24), image)
    message = error_of(call(capsys, monkeypatch, *evaluate, "--root", moved))
    assert f"--root {moved}: holds another copy of vtab_kitti" in message
    moved.rename(kitti.root)
    message = error_of(call(capsys, monkeypatch, *evaluate))
    assert "task vtab_kitti: the files in" in message
    assert "have changed" in message


# The user's own data


def bare_file(store: Path, row: dict, folder: Path) -> Path:
    return Path(shutil.copy(store / row["run_id"] / ADAPTER, folder / "alone.safetensors"))


def test_a_folder_in_vtabs_layout_with_counts_of_its_own(tmp_path: Path, capsys, monkeypatch) -> None:
    bench, store = Bench(tmp_path / "leaves", None, tmp_path / "cache"), tmp_path / "store"
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    trees.vtab_task(bench.root, 3, {"train": 70, "val": 26, "test": 33}, suffix=".png")
    done = bench.petl("sweep", "--store", store, *ONE, "task=folder", *bench.data, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json_lines(done.stdout)
    assert (row["task"], row["suite"], row["data_override"]) == ("leaves", "own", "")
    assert (row["n_train"], row["n_test"]) == (70 + 26, 33)
    (facts,) = json_lines(call(capsys, monkeypatch, "inspect", store / row["run_id"], "--json").stdout)
    assert facts["classes"] == 3
    alone = bare_file(store, row, tmp_path)
    by_run = call(capsys, monkeypatch, "eval", row["run_id"], "--store", store, "--json")
    own = call(capsys, monkeypatch, "eval", alone, "--task", "folder", "--root", bench.root, "--json")
    assert by_run.returncode == own.returncode == 0, own.stderr
    (line,), (bare,) = json_lines(by_run.stdout), json_lines(own.stdout)
    assert (line["acc"], line["agrees"]) == (row["acc"], True)
    assert (bare["acc"], bare["task"], bare["n_test"]) == (row["acc"], "leaves", 33)
    table = call(capsys, monkeypatch, "report", "--store", store)
    assert table.returncode == 0
    assert "leaves" in table.stdout


def class_folders(root: Path, counts: dict[str, int], offset: int = 0) -> None:
    for label, (name, count) in enumerate(counts.items()):
        for number in range(offset, offset + count):
            image = trees.picture(label, number, 24 + number % 9)
            trees.save(image, root / name / f"{number}.jpg")


TREE = [*ONE, "task=tree"]


def test_class_folders_alone_are_drawn_from_by_seed(tmp_path: Path, capsys, monkeypatch) -> None:
    bench, store = Bench(tmp_path / "flowers", None, tmp_path / "cache"), tmp_path / "store"
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    class_folders(bench.root, {"daisy": 40, "rose": 30, "tulip and others": 20})
    settings = [*TREE, *bench.data, "data.images=60"]
    arguments = ["sweep", "--store", store, *settings, "split_seed=0,1", "--json"]
    done = call(capsys, monkeypatch, *arguments)
    assert done.returncode == 0, done.stderr
    first, second = json_lines(done.stdout)
    for row, seed in ((first, 0), (second, 1)):
        assert (row["task"], row["suite"], row["split_seed"]) == ("flowers", "own", seed)
        assert (row["n_train"], row["n_test"]) == (60, 90 - 60)
    assert first["data_fingerprint"] != second["data_fingerprint"]
    # The same seed draws the same images again, in another process and without a cache.
    fresh = Bench(bench.root, None, tmp_path / "fresh")
    done = fresh.petl("sweep", "--store", tmp_path / "other", *settings, "split_seed=0", "--json")
    assert done.returncode == 0, done.stderr
    (again,) = json_lines(done.stdout)
    same = ("run_id", "data_fingerprint", "acc", "bytes_file")
    assert [again[key] for key in same] == [first[key] for key in same]
    files = [(folder / first["run_id"] / ADAPTER).read_bytes() for folder in (store, tmp_path / "other")]
    assert files[0] == files[1]
    done = call(capsys, monkeypatch, "eval", "--all", "--store", store, "--json")
    assert [line["agrees"] for line in json_lines(done.stdout)] == [True, True]


def test_a_drawn_test_set_is_evaluated_in_its_store_only(tmp_path: Path, capsys, monkeypatch) -> None:
    """A bare file does not hold the draw: other images, training images among them, would be scored."""
    bench, store = Bench(tmp_path / "flowers", None, tmp_path / "cache"), tmp_path / "store"
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    class_folders(bench.root, {"daisy": 40, "rose": 30})
    settings = [*TREE, *bench.data, "data.images=40", "split_seed=1"]
    assert call(capsys, monkeypatch, "sweep", "--store", store, *settings).returncode == 0
    (row,) = rows_of(store)
    alone = bare_file(store, row, tmp_path)
    for more in (["--task", "tree"], []):
        message = error_of(call(capsys, monkeypatch, "eval", alone, *more, "--root", bench.root))
        assert "--task tree" in message if more else "--task folder" in message
    assert call(capsys, monkeypatch, "eval", "--all", "--store", store).returncode == 0


@pytest.mark.parametrize("present", [("train", "val"), ("train",), ("test", "rose")])
def test_a_tree_with_parts_in_doubt_is_refused(
    tmp_path: Path, capsys, monkeypatch, present: tuple[str, ...]
) -> None:
    bench = Bench(tmp_path / "flowers", None, tmp_path / "cache")
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    for name in present:
        class_folders(bench.root / name, {"daisy": 5, "rose": 5})
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", *TREE, *bench.data)
    assert "not both train/ and test/" in error_of(done)


def test_a_list_with_files_of_another_split_stops_a_sweep(
    kitti: Bench, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(kitti.cache))
    path = kitti.root / "kitti/train800val200.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["images/test/000003.jpg 3\n", *lines[1:]]))
    arguments = ["sweep", "--store", tmp_path / "store", *ONE, "task=vtab_kitti", *kitti.data]
    message = error_of(call(capsys, monkeypatch, *arguments))
    assert "images/test/000003.jpg" in message
    assert "train800val200.txt" in message


def test_a_sweep_says_when_test_images_are_training_images(
    kitti: Bench, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(kitti.cache))
    images = kitti.root / "kitti/images"
    shutil.copyfile(images / "train800/000001.jpg", tmp_path / "copy.jpg")
    (tmp_path / "copy.jpg").replace(images / "test/000002.jpg")
    arguments = ["sweep", "--store", tmp_path / "store", *ONE, "task=vtab_kitti", *kitti.data, "--dry-run"]
    done = call(capsys, monkeypatch, *arguments)
    assert done.returncode == 0, done.stderr
    assert "1 test images of vtab_kitti are training or val images too" in done.stderr


def test_class_folders_with_a_test_folder(tmp_path: Path, capsys, monkeypatch) -> None:
    bench, store = Bench(tmp_path / "flowers", None, tmp_path / "cache"), tmp_path / "store"
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    class_folders(bench.root / "train", {"daisy": 30, "rose": 30})
    class_folders(bench.root / "test", {"daisy": 6, "rose": 5}, offset=50)
    arguments = ["sweep", "--store", store, *TREE, *bench.data, "data.images=40,1000", "--json"]
    done = call(capsys, monkeypatch, *arguments)
    assert done.returncode == 0, done.stderr
    # 40 are drawn of the 60 in train/; of 1,000 there are only 60. The test folder is test, whole.
    assert [(row["n_train"], row["n_test"]) for row in json_lines(done.stdout)] == [(40, 11), (60, 11)]
    row = pick(store, n_train=60)
    alone = bare_file(store, row, tmp_path)
    done = call(capsys, monkeypatch, "eval", alone, "--task", "tree", "--root", bench.root, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json_lines(done.stdout)
    assert (line["acc"], line["n_test"]) == (row["acc"], 11)
    (bench.root / "test/rose").rename(bench.root / "test/roses")
    message = error_of(call(capsys, monkeypatch, *arguments[:2], tmp_path / "new", *arguments[3:]))
    assert "do not hold the same class folders" in message


def test_a_tree_with_too_few_images_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    bench = Bench(tmp_path / "few", None, tmp_path / "cache")
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    class_folders(bench.root, {"daisy": 20, "rose": 20})
    arguments = ["sweep", "--store", tmp_path / "store", *TREE, *bench.data]
    for images in ("data.images=1000", "data.images=40"):
        message = error_of(call(capsys, monkeypatch, *arguments, images))
        assert "no image is left for test" in message
        assert images in message
    for images in (0, -5):
        message = error_of(call(capsys, monkeypatch, *arguments, f"data.images={images}"))
        assert f"data.images={images}" in message
    shutil.rmtree(bench.root)
    bench.root.mkdir()
    message = error_of(call(capsys, monkeypatch, *arguments, "data.images=10"))
    assert str(bench.root) in message
    assert not (tmp_path / "store").exists()


def test_an_image_that_is_none_fails_the_run_and_is_named(
    kitti: Bench, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PETL_BENCH_CACHE", str(kitti.cache))
    (kitti.root / "kitti/images/test/000005.jpg").write_bytes(b"no image" * 40)
    arguments = ["sweep", "--store", tmp_path / "store", *ONE, "task=vtab_kitti", *kitti.data]
    done = call(capsys, monkeypatch, *arguments)
    assert done.returncode in (1, 2)
    assert "000005.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob(f"*/{ROW}"))
