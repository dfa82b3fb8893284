"""Sweeps and evaluations stop with a clear message when the data of a benchmark are not as stated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from petl_bench.store import ROW
from tests import trees
from tests.benches import ONE, Bench
from tests.conftest import call, error_of, json_lines, petl, rows_of

SIZES = {"train": 96, "val": 32, "test": 24}


@pytest.fixture
def kitti(tmp_path: Path) -> Bench:
    """Write one small task of VTAB-1K."""
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
    return f"{path}: lists 31 images, it should be 32"


def a_line_too_many(bench: Bench) -> str:
    path = bench.root / "kitti/test.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    return f"{path}: lists 25 images, it should be 24"


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
    return "1 label out of range, the first 4 of images/test/000003.jpg; the 4 classes are 0 to 3"


DAMAGES = [no_root, no_task_folder, a_line_too_few, a_line_too_many, no_list, no_image, a_label_out_of_range]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.sampled(2)
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
