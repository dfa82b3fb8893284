"""Augmentation: the same for any number of processes, timm's transforms, one file whatever the loaders."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from petl_bench.config import plan
from petl_bench.data import Ragged
from petl_bench.run.execute import execute
from petl_bench.run.identity import identify, job_of, resolve_tasks
from petl_bench.run.training import train
from petl_bench.store import ADAPTER
from petl_bench.train import Pixels
from petl_bench.train.augment import AugmentedImages, BatchAugmentation
from petl_bench.types import NORMALIZATIONS, AugmentSpec, Cache, RunSpec, Runtime
from tests import tiny, trees
from tests.conftest import long

SIZE = 32
FULL = AugmentSpec(crop=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1")
JITTER = AugmentSpec(crop=True, color_jitter=0.4)
PLAIN = AugmentSpec(crop=True)
KINDS = {"full": FULL, "jitter": JITTER, "plain": PLAIN}
SCHEDULE = [[torch.tensor([3, 0]), torch.tensor([4, 2])], [torch.tensor([0, 3]), torch.tensor([1, 4])]]
"""Two epochs of two batches; the second sees images of the first again."""


def pictures(side: int | None = None) -> list[np.ndarray]:
    """Five images (height, width, 3) of different sizes, or all of one size."""
    sizes = [(40, 52), (33, 61), (48, 48), (70, 35), (24, 30)]
    found = [np.asarray(trees.picture(label, label, 70)) for label in range(5)]
    return [image[: side or h, : side or w] for image, (h, w) in zip(found, sizes, strict=True)]


def ragged(images: list[np.ndarray]) -> Ragged:
    shapes = np.array([image.shape[:2] for image in images], np.int64)
    flat = np.concatenate([np.ascontiguousarray(image).ravel() for image in images])
    return Ragged(flat, shapes[:, 0], shapes[:, 1])


def augmented(spec: AugmentSpec = FULL, seed: int = 0, normalization: str = "imagenet") -> AugmentedImages:
    return AugmentedImages(ragged(pictures()), spec, SIZE, NORMALIZATIONS[normalization], seed)


def all_batches(loaders: int, spec: AugmentSpec = FULL) -> Tensor:
    return torch.stack(list(augmented(spec).batches(SCHEDULE, loaders)))


# One image at a time


@pytest.mark.parametrize("kind", KINDS)
def test_images_do_not_depend_on_the_number_of_processes(kind: str) -> None:
    alone = all_batches(0, KINDS[kind])
    assert alone.shape == (4, 2, 3, SIZE, SIZE)
    assert alone.dtype == torch.uint8
    assert torch.equal(alone, all_batches(2, KINDS[kind]))


def test_images_do_not_depend_on_what_was_asked_for_before() -> None:
    """Each image of each batch by itself, in reverse, from a fresh object."""
    together, fresh = all_batches(0), augmented()
    wanted = [(epoch, int(i)) for epoch, held in enumerate(SCHEDULE) for batch in held for i in batch]
    single = torch.stack([fresh[item] for item in reversed(wanted)]).flip(0)
    assert torch.equal(together.flatten(0, 1), single)


def digest() -> str:
    return hashlib.sha256(all_batches(0).numpy().tobytes()).hexdigest()


@long
def test_another_process_makes_the_same_images() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from tests.test_augment import digest; print(digest())"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == [digest()]


@pytest.mark.parametrize("kind", KINDS)
def test_images_depend_on_seed_epoch_and_index(kind: str) -> None:
    first, other = augmented(KINDS[kind]), augmented(KINDS[kind], seed=1)
    drawn = [first[epoch, 0] for epoch in range(4)] + [other[epoch, 0] for epoch in range(4)]
    assert len({image.numpy().tobytes() for image in drawn}) == len(drawn)
    same = AugmentedImages(ragged([pictures()[0]] * 3), KINDS[kind], SIZE, NORMALIZATIONS["imagenet"], 0)
    assert len({same[0, index].numpy().tobytes() for index in range(3)}) == 3


def generators() -> tuple[object, ...]:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tobytes(), *rest, torch.random.get_rng_state().numpy().tobytes()


def test_the_generators_of_the_process_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    before = generators()
    items = augmented()
    for epoch in range(3):
        items[epoch, 1]
    recipe = tiny.recipe(1, 8, augment=AugmentSpec(erasing=1.0, mixup=0.8, cutmix=1.0, smoothing=0.1))
    mixing = BatchAugmentation(recipe, tiny.CLASSES, 0, torch.device("cpu"))
    mixing(torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator()), torch.arange(8) % tiny.CLASSES)
    assert generators() == before


def test_the_generators_are_put_back_after_an_error() -> None:
    items, before = augmented(), generators()
    with pytest.raises(IndexError):
        items[0, 99]
    assert generators() == before


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arrays_give_what_ragged_images_give(kind: str) -> None:
    images = pictures(24)
    arrays = np.stack(images).transpose(0, 3, 1, 2)
    normalization = NORMALIZATIONS["imagenet"]
    first = AugmentedImages(ragged(images), KINDS[kind], SIZE, normalization, 3)
    second = AugmentedImages(np.ascontiguousarray(arrays), KINDS[kind], SIZE, normalization, 3)
    for item in [(epoch, index) for epoch in range(2) for index in range(5)]:
        assert torch.equal(first[item], second[item])


def test_one_channel_counts_as_three_equal_ones() -> None:
    grey = np.stack(pictures(24)).transpose(0, 3, 1, 2)[:, :1]
    normalization = NORMALIZATIONS["imagenet"]
    first = AugmentedImages(np.ascontiguousarray(grey), FULL, SIZE, normalization, 0)
    second = AugmentedImages(np.ascontiguousarray(np.repeat(grey, 3, 1)), FULL, SIZE, normalization, 0)
    for index in range(5):
        assert torch.equal(first[0, index], second[0, index])


@given(
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 999),
    index=st.integers(0, 4),
    kind=st.sampled_from([*KINDS]),
)
def test_an_item_is_timms_transform_under_its_seeds(seed: int, epoch: int, index: int, kind: str) -> None:
    """timm's own transform up to a float tensor, under the seed that (seed, epoch, index) spawn.

    A colour jitter of nothing at all, in place of none, and the filling of rotated corners by the mean
    colour are all that could tell the two apart.
    """
    spec = KINDS[kind]
    mean, std = NORMALIZATIONS["imagenet"]
    transform = create_transform(
        SIZE,
        is_training=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=spec.color_jitter or None,
        auto_augment=spec.auto_augment or None,
        interpolation="bicubic",
        mean=mean,
        std=std,
    )
    (number,) = np.random.SeedSequence((seed, epoch, index)).generate_state(1).tolist()
    state = generators_seeded(number)
    try:
        expected = transform(Image.fromarray(pictures()[index]))
    finally:
        state()
    found = augmented(spec, seed)[epoch, index]
    pixels = Pixels("imagenet", SIZE, torch.device("cpu"))(found[None])[0]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def generators_seeded(number: int) -> Callable[[], None]:
    """Seed all three generators; what is returned puts them back."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)

    def back() -> None:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])

    return back


# Training


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few-shot set of the user's own: class folders with images of several sizes."""
    root = tmp_path_factory.mktemp("tree") / "own"
    for label in range(4):
        for number in range(30):
            image = trees.picture(label, number, 30 + (number + label) % 25)
            trees.save(image, root / f"class {label}/{number}.jpg")
    return root


def spec_of(root: Path, cache: Path, recipe: str) -> RunSpec:
    overrides = ["sweep=none", "task=tree", f"data.root={root}", "data.images=80", "hidden=4", "scale=1"]
    overrides += [f"train={recipe}", "train.epochs=2", "train.batch_size=32", "train.warmup_epochs=0"]
    (spec,) = resolve_tasks(plan(overrides).runs, Cache(str(cache)))
    return spec


@pytest.mark.parametrize("recipe", ["fgvc", "fgvc_noah"])
@pytest.mark.sampled(1)
def test_training_with_augmentation_gives_one_file_whatever_the_loaders(
    recipe: str, own: Path, tmp_path: Path
) -> None:
    files = []
    for loaders in (0, 2):
        spec = spec_of(own, tmp_path / "cache", recipe)
        runtime = Runtime(str(tmp_path / str(loaders)), loaders=loaders, cache=Cache(str(tmp_path / "cache")))
        row = execute(job_of(spec), runtime)
        # 80 of 120 images are drawn, the rest are test.
        assert (row.n_train, row.n_test, row.normalization) == (80, 40, "imagenet")
        files.append((tmp_path / str(loaders) / row.run_id / ADAPTER).read_bytes())
    assert files[0] == files[1]


def test_augmentation_decides_the_model_and_the_identity(own: Path, tmp_path: Path) -> None:
    spec, runtime = spec_of(own, tmp_path, "fgvc"), Runtime("", cache=Cache(str(tmp_path)))
    other = replace(spec, train=replace(spec.train, augment=replace(spec.train.augment, auto_augment="")))
    assert identify(spec) != identify(other)
    trained = [train(each, runtime).adapted for each in (spec, other)]
    heads = [adapted.head.matrices["weight"].weight.detach() for adapted in trained]
    assert not torch.equal(*heads)
