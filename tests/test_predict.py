"""`petl-bench predict`: agreement with the evaluation, forms of output, and what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petl_bench import data
from petl_bench.store import ADAPTER, Store
from petl_bench.types import Cache
from tests.conftest import error_of, json_lines, pick, quickly


@pytest.fixture(scope="module")
def run(finished_store: Path) -> Path:
    return finished_store / pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]


@pytest.fixture(scope="module")
def pictures(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images of the run as PNG files, in folders of a hundred."""
    folder = tmp_path_factory.mktemp("digits")
    split = data.load(Store(run.parent).spec(run.name).task, "test", 32, Cache())
    for number, image in enumerate(split.images):
        path = folder / f"{number // 100}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(path)
    return folder


def test_predictions_of_files_are_those_of_the_run_to_the_image(run: Path, pictures: Path) -> None:
    done = quickly("predict", run, pictures, "--json", "--top", 3, "--device", "cpu", "--threads", 1)
    assert done.returncode == 0, done.stderr
    found = json_lines(done.stdout)
    store = Store(run.parent)
    labels = data.load(store.spec(run.name).task, "test", 32, Cache()).labels
    kept = store.predictions(run.name)
    assert kept is not None
    assert [line["class"] for line in found] == kept.given(labels).tolist()
    assert [line["image"] for line in found] == [str(path) for path in sorted(pictures.glob("*/*.png"))]
    for line in found:
        probabilities = [one["probability"] for one in line["top"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 <= probabilities[-1] <= probabilities[0] <= sum(probabilities) <= 1 + 1e-9
        assert (line["name"], line["probability"]) == (str(line["class"]), probabilities[0])


def test_text_and_csv_say_the_same_as_json(run: Path, pictures: Path) -> None:
    files = sorted(pictures.glob("0/*.png"))[:2]
    arguments = ["predict", run / ADAPTER, *files, "--top", 2]
    objects = json_lines(quickly(*arguments, "--json").stdout)
    text = quickly(*arguments).stdout.splitlines()
    lines = list(csv.DictReader(io.StringIO(quickly(*arguments, "--csv").stdout)))
    expected = [
        (found["image"], str(rank), str(one["class"]), one["name"], one["probability"])
        for found in objects
        for rank, one in enumerate(found["top"], 1)
    ]
    assert [(*list(line.values())[:4], float(line["probability"])) for line in lines] == expected
    for line, found in zip(text, objects, strict=True):
        shown = ", ".join(f"{one['name']} {one['probability']:.4f}" for one in found["top"])
        assert line == f"{found['image']}: {shown}"


def test_images_that_cannot_be_read_are_named_and_skipped(run: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:50])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "notes.txt").write_text("no image")
    done = quickly("predict", run, tmp_path, "--json")
    assert done.returncode == 1
    assert [line["image"] for line in json_lines(done.stdout)] == [str(good)]
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert [line.split(": ")[1] for line in skipped] == [
        str(tmp_path / name) for name in ("cut.png", "empty.jpg", "page.png")
    ]
    assert "left out are 1 files with suffix .txt" in done.stderr
    assert "4 images in" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("3 skipped")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.safetensors", "good.png"], "none.safetensors: no such file"),
        (["good.png", "good.png"], "good.png: not a petl-bench adapter file"),
        (["RUN", "none.png"], "none.png: no such file or folder"),
        (["RUN", "good.png", "hollow"], "hollow: this folder holds no image"),
        (["RUN", "good.png", "--top", "11"], "--top=11 is out of range: it must be at most 10"),
        (["RUN", "good.png", "--top", "0"], "--top=0 is out of range"),
        (["RUN", "good.png", "--batch-size", "0"], "--batch-size=0 is out of range"),
        (
            ["RUN", "good.png", "--threads", "-1"],
            "--threads=-1 is out of range: it must be 0 for all cores, or at least 1, at most 1,024",
        ),
        (["RUN", "good.png", "--device", "moon"], "device=moon: torch has no such device"),
        (["RUN", "good.png", "--precision", "fp8"], "precision='fp8'"),
        (["RUN", "good.png", "--resize", "squash"], "resize='squash'"),
        (["RUN", "good.png", "--resize", "crop"], "are resized by 'stretch'"),
        (["RUN", "good.png", "--backbone-weights", "w.npz"], "no such file"),
        (["RUN", "good.png", "--json", "--csv"], "--json and --csv: give one of them"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_predicted(
    arguments: list[str], message: str, run: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    (tmp_path / "hollow").mkdir()
    words = [str(run) if word == "RUN" else word for word in arguments]
    assert message in error_of(quickly("predict", *words, cwd=tmp_path))
