"""Enlargement on the device against Pillow itself, and what the backbone is fed."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import timm.data.constants as published
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from petl_bench.data.resample import bicubic
from petl_bench.train.pixels import Pixels
from petl_bench.types import NORMALIZATIONS

LARGEST = 224
"""Input side of most backbones."""

CPU = torch.device("cpu")
CONTENTS = ("noise", "black and white", "black", "white", "one white pixel", "ramp")
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 64)


def content(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """A grey image (height, width); black beside white is where a cubic overshoots and must be cut off."""
    random = np.random.RandomState(seed)
    image = np.zeros((height, width), np.uint8)
    if kind == "noise":
        image = random.randint(0, 256, (height, width)).astype(np.uint8)
    elif kind == "black and white":
        image = random.choice(np.array([0, 255], np.uint8), (height, width))
    elif kind == "white":
        image[:] = 255
    elif kind == "one white pixel":
        image[random.randint(height), random.randint(width)] = 255
    elif kind == "ramp":
        image[:] = np.linspace(0, 255, width).astype(np.uint8)
    return image


def by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A grey image (H, W) or one in colour (3, H, W), resized by Pillow."""
    planes = image if image.ndim == 2 else image.transpose(1, 2, 0)
    found = np.asarray(
        Image.fromarray(np.ascontiguousarray(planes)).resize((width, height), Image.Resampling.BICUBIC)
    )
    return found if image.ndim == 2 else found.transpose(2, 0, 1)


@given(st.sampled_from(CONTENTS), sides, sides, st.integers(0, 160), st.integers(0, 160), seeds)
@example("black and white", 1, 1, LARGEST - 1, LARGEST - 1, 0)
@example("black and white", 64, 1, 0, LARGEST - 1, 0)
@example("noise", 32, 32, LARGEST - 32, LARGEST - 32, 0)
@example("one white pixel", 2, 63, 1, 1, 3)
def test_an_enlargement_is_pillows(
    kind: str, height: int, width: int, higher: int, wider: int, seed: int
) -> None:
    image, size = content(kind, height, width, seed), (height + higher, width + wider)
    found = bicubic(torch.from_numpy(image), *size)
    np.testing.assert_array_equal(found.numpy(), by_pillow(image, *size))


@given(st.sampled_from(CONTENTS), st.integers(1, 300), sides, st.integers(1, 300), st.booleans(), seeds)
@example("black and white", 300, 16, 1, True, 0)
@example("black and white", 225, 16, 224, False, 1)
def test_a_reduction_of_one_axis_is_pillows(
    kind: str, long: int, other: int, target: int, columns: bool, seed: int
) -> None:
    # One pass only, so that the order of the passes, which Pillow changed, does not matter.
    shape, size = ((other, long), (other, min(target, long)))
    image = content(kind, *shape, seed)
    if not columns:
        image, size = np.ascontiguousarray(image.T), size[::-1]
    found = bicubic(torch.from_numpy(image), *size)
    np.testing.assert_array_equal(found.numpy(), by_pillow(image, *size))


@given(st.lists(st.integers(1, 3), max_size=3), sides, sides, st.integers(0, 20), st.integers(0, 20), seeds)
def test_leading_axes_and_type_are_kept_and_planes_do_not_mix(
    leading: list[int], height: int, width: int, higher: int, wider: int, seed: int
) -> None:
    images = np.random.RandomState(seed).randint(0, 256, (*leading, height, width)).astype(np.uint8)
    size = (height + higher, width + wider)
    found = bicubic(torch.from_numpy(images), *size)
    assert found.dtype == torch.uint8
    assert found.shape == (*leading, *size)
    planes, originals = found.reshape(-1, *size).numpy(), images.reshape(-1, height, width)
    for plane, original in zip(planes, originals, strict=True):
        np.testing.assert_array_equal(plane, by_pillow(original, *size))


def test_the_size_it_has_changes_nothing() -> None:
    images = torch.from_numpy(content("noise", 31, 17, 0))[None]
    assert torch.equal(bicubic(images, 31, 17), images)


def test_the_images_given_are_not_written_to() -> None:
    images = torch.from_numpy(content("black and white", 9, 9, 0))
    before = images.clone()
    bicubic(images, 20, 20)
    assert torch.equal(images, before)


# Pixels: bytes -> the backbone's input


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(24, 24), (20, 31), (1, 1), (48, 48)], ids=str)
def test_pixels_are_pillows_enlargement_in_zero_to_one(channels: int, shape: tuple[int, int]) -> None:
    images = np.random.RandomState(5).randint(0, 256, (4, channels, *shape)).astype(np.uint8)
    found = Pixels("none", 48, CPU)(torch.from_numpy(images))
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 48, 48)
    for image, own in zip(images, found, strict=True):
        # A grey image is the same in all three channels, as PIL's convert("RGB") makes it.
        colour = by_pillow(np.broadcast_to(image, (3, *shape)), 48, 48)
        np.testing.assert_array_equal(own.numpy(), colour.astype(np.float32) / np.float32(255))


SATELLITE = timm.get_pretrained_cfg("vit_large_patch16_dinov3.sat493m")
PUBLISHED = {
    "none": ((0, 0, 0), (1, 1, 1)),
    "imagenet": (published.IMAGENET_DEFAULT_MEAN, published.IMAGENET_DEFAULT_STD),
    "half": (published.IMAGENET_INCEPTION_MEAN, published.IMAGENET_INCEPTION_STD),
    "clip": (published.OPENAI_CLIP_MEAN, published.OPENAI_CLIP_STD),
    "sat493m": (SATELLITE.mean, SATELLITE.std),
}
"""As timm states them, with which the backbones were pretrained."""


def test_every_normalization_has_its_published_constants() -> None:
    assert dict(NORMALIZATIONS) == PUBLISHED


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_has_its_own_mean_and_deviation(name: str, channels: int) -> None:
    levels = np.arange(0, 256, 15, dtype=np.uint8)  # 0, 15, ... 255: one image for each
    images = np.broadcast_to(levels[:, None, None, None], (len(levels), channels, 8, 8))
    found = Pixels(name, 16, CPU)(torch.from_numpy(np.ascontiguousarray(images))).numpy()
    for channel, (mean, std) in enumerate(zip(*PUBLISHED[name], strict=True)):
        # by hand in float64; a flat image stays flat when it is enlarged
        expected = np.broadcast_to(((levels / 255 - mean) / std)[:, None, None], (len(levels), 16, 16))
        np.testing.assert_allclose(found[:, channel], expected, rtol=1e-5, atol=1e-6)
