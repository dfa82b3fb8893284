"""The user's own data: a folder in VTAB's layout, and trees of class folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from petl_bench.data.tree import tree_listings
from petl_bench.store import ADAPTER, Store
from tests import trees
from tests.benches import ONE, Bench
from tests.conftest import call, error_of, json_lines, pick, rows_of


def bare_file(store: Path, row: dict, folder: Path) -> Path:
    return Path(shutil.copy(store / row["run_id"] / ADAPTER, folder / "alone.safetensors"))


def test_a_folder_in_vtabs_layout_with_counts_of_its_own(tmp_path: Path, capsys, monkeypatch) -> None:
    bench, store = Bench(tmp_path / "leaves", None, tmp_path / "cache"), tmp_path / "store"
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    trees.vtab_task(bench.root, 3, {"train": 70, "val": 26, "test": 33}, suffix=".png")
    done = bench.quickly("sweep", "--store", store, *ONE, "task=folder", *bench.data, "--json")
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
    # The file alone knows the classes, and predicts them as the run did on its test images.
    alone, run = bare_file(store, first, tmp_path), Store(store)
    (facts,) = json_lines(call(capsys, monkeypatch, "inspect", alone, "--json").stdout)
    assert facts["class_names"] == ["daisy", "rose", "tulip and others"]
    assert (facts["resize"], facts["bytes_overhead"] - facts["bytes_class_names"] <= 512) == ("crop", True)
    listing = tree_listings(run.spec(first["run_id"]).task)["test"]
    images = [listing.folder / name for name in listing.names]
    predicted = json_lines(call(capsys, monkeypatch, "predict", alone, *images, "--json").stdout)
    kept = run.predictions(first["run_id"])
    assert kept is not None
    assert [line["class"] for line in predicted] == kept.given(listing.labels).tolist()
    assert {(line["class"], line["name"]) for line in predicted} <= {*enumerate(facts["class_names"])}


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
@pytest.mark.sampled(1)
def test_a_tree_with_parts_in_doubt_is_refused(
    tmp_path: Path, capsys, monkeypatch, present: tuple[str, ...]
) -> None:
    bench = Bench(tmp_path / "flowers", None, tmp_path / "cache")
    monkeypatch.setenv("PETL_BENCH_CACHE", str(bench.cache))
    for name in present:
        class_folders(bench.root / name, {"daisy": 5, "rose": 5})
    done = call(capsys, monkeypatch, "sweep", "--store", tmp_path / "store", *TREE, *bench.data)
    assert "not both train/ and test/" in error_of(done)


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
        assert f"{images} of 40 images are" in message
    for images in (0, -5):
        message = error_of(call(capsys, monkeypatch, *arguments, f"data.images={images}"))
        assert f"data.images={images}" in message
    shutil.rmtree(bench.root)
    bench.root.mkdir()
    message = error_of(call(capsys, monkeypatch, *arguments, "data.images=10"))
    assert str(bench.root) in message
    assert not (tmp_path / "store").exists()
