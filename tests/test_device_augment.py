"""Augmentation on the device: timm's choices and Pillow's pixels, whose own code is the reference."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP, AugmentOp, RandAugment

from petl_bench.train import augment
from petl_bench.train.choices import LARGE, STEPS, Choices, collated, computed
from petl_bench.train.pillow import _weights
from petl_bench.types import NORMALIZATIONS, AugmentSpec
from tests.test_augment import generators, generators_seeded
from tests.test_resample import CONTENTS, content

CPU = torch.device("cpu")
KINDS = {
    "plain": AugmentSpec(crop=True),
    "jitter": AugmentSpec(crop=True, color_jitter=0.4),
    "strong jitter": AugmentSpec(crop=True, color_jitter=3.0),
    "recipe": AugmentSpec(crop=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1"),
    "four": AugmentSpec(crop=True, auto_augment="rand-m10-n4-mstd2"),
    "auto": AugmentSpec(crop=True, auto_augment="original-mstd0.5"),
}


def picture(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """A picture in color (height, width, 3), of three grey ones."""
    return np.stack([content(kind, height, width, seed + i) for i in range(3)], 2)


def transform(spec: AugmentSpec, size: int) -> object:
    return augment.transform(spec, size, NORMALIZATIONS["imagenet"])


def both(made: object, images: list[np.ndarray], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as timm and Pillow make it one by one, and as it is computed at once."""
    choices, expected, items = Choices(made), [], []
    for number, image in enumerate(images):
        back = generators_seeded(seed + number)
        try:
            expected.append(torch.as_tensor(made(Image.fromarray(image))))
            after = generators()
            generators_seeded(seed + number)
            choice = choices.draw(*image.shape[:2])
            assert generators() == after  # what is drawn next is the same, too
        finally:
            back()
        items.append((choices.cropped(image, choice), choice))
    return torch.stack(expected), computed(collated(items), choices.size, CPU)


sides = st.integers(1, 150)
pictures = st.lists(st.tuples(st.sampled_from(CONTENTS), sides, sides), min_size=1, max_size=6)


@given(st.sampled_from([*KINDS]), pictures, st.sampled_from([16, 24, 32]), st.integers(0, 2**31))
def test_a_batch_has_the_pixels_of_timm_and_pillow(
    kind: str, shapes: list[tuple[str, int, int]], size: int, seed: int
) -> None:
    """Images of any sizes are enlarged, reduced or left at their size, with crops that differ in shape."""
    images = [picture(*shape, seed % 1000) for shape in shapes]
    expected, found = both(transform(KINDS[kind], size), images, seed)
    assert torch.equal(found, expected)


def test_an_empty_crop_of_an_image_of_few_pixels_is_black() -> None:
    """Crops of such an image may have no pixel; they go together with others, and alone."""
    made, empty = transform(KINDS["plain"], 16), 0
    for seed in range(40):
        images = [picture("noise", 1, 1 + seed % 2, seed), picture("noise", 9, 7, seed)]
        expected, found = both(made, images, seed)
        assert torch.equal(found, expected)
        alone, at_once = both(made, images[:1], seed)
        assert torch.equal(at_once, alone)
        empty += alone.unique().numel() == 3  # black in each channel, normalized
    assert empty
    # NaN becomes the integer 0 on some devices alone.
    assert torch.isfinite(_weights(torch.tensor([0, 3]), 4, 5)).all()


@pytest.mark.parametrize("name", list(STEPS))
def test_each_operation_has_the_pixels_of_pillow(name: str) -> None:
    """At all strengths and in both directions, on noise, on black and white, and on grey ramps."""
    assert name in NAME_TO_OP
    made = transform(KINDS["recipe"], 24)
    options = made.transforms[2].ops[0].hparams
    for strength in (1, 9):
        made.transforms[2] = RandAugment([AugmentOp(name, 1.0, strength, options)], 1)
        images = [picture(kind, 20, 25, strength) for kind in CONTENTS]
        expected, found = both(made, images, strength)
        assert torch.equal(found, expected), strength


def test_a_large_crop_is_resized_before_it_goes_to_the_device() -> None:
    image = picture("noise", 100, 100, 0)
    made = transform(KINDS["plain"], 16)
    choices = Choices(made)
    random.seed(0)
    drawn = [choices.draw(100, 100) for _ in range(30)]
    large = [choice for choice in drawn if choice.box[2] * choice.box[3] > (LARGE * 16) ** 2]
    assert 0 < len(large) < len(drawn)
    assert all(choices.cropped(image, choice).shape == (16, 16, 3) for choice in large)
    expected, found = both(made, [image] * 30, 0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("policy", ["augmix-m5-w4-d2", "3a"])
def test_a_policy_that_is_not_known_is_left_to_timm(policy: str) -> None:
    with pytest.raises(LookupError):
        Choices(transform(AugmentSpec(crop=True, auto_augment=policy), 32))
