"""Random choices of timm's training transform, drawn without pixels, and their execution on whole batches.

The transform draws where it crops, whether it flips, and which operations of `auto_augment` or color jitter
follow with which strength. Here its own objects draw, in the same order from the same generators, but nothing
is computed. What they chose is then computed on the device for all images at once, with the pixels that
Pillow would have (petl_bench.train.pillow).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import AutoAugment, RandAugment
from timm.data.transforms import MaybePILToTensor, RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomHorizontalFlip

from petl_bench.train import pillow
from petl_bench.train.pixels import to_device

Pixels8 = NDArray[np.uint8]
Values = NDArray[np.float64]
Step = tuple[str, Values]
"""An operation of petl_bench.train.pillow and its numbers (k,)."""


@dataclass
class Choice:
    """Choices for one image: its crop, its flip and the operations on its pixels.

    Attributes:
        box: top, left, height and width of the crop, in pixels.
        flip: whether the result is mirrored.
        steps: operations after that.
    """

    box: tuple[int, int, int, int]
    flip: bool
    steps: list[Step] = field(default_factory=list)


class Choices:
    """Random choices of a transform of `petl_bench.train.augment.transform`.

    Args:
        transform: the transform; it is not changed.

    Raises:
        LookupError: it has a part that is not known here, so that it must be executed itself.
    """

    def __init__(self, transform: Any) -> None:
        crop, flip, *others, last = transform.transforms
        kinds = (RandomResizedCropAndInterpolation, RandomHorizontalFlip, MaybePILToTensor)
        if not all(map(isinstance, (crop, flip, last), kinds)) or len(others) > 1:
            raise LookupError("unknown transforms")
        if crop.interpolation != InterpolationMode.BICUBIC or crop.size[0] != crop.size[1]:
            raise LookupError("another interpolation")
        self.crop, self.flip, self.size = crop, flip, int(crop.size[0])
        self.jitter: ColorJitter | None = None
        self.policy: Any = None
        for other in others:
            if isinstance(other, ColorJitter) and other.hue is None:
                self.jitter = other
            elif isinstance(other, RandAugment | AutoAugment):
                self.policy = _recording(other, self.size)
            else:
                raise LookupError("an unknown transform")

    def draw(self, height: int, width: int) -> Choice:
        """Draw the choices for an image of this size from the generators of Python, NumPy and torch."""
        shape = torch.empty((1, height, width), device="meta")
        box = self.crop.get_params(shape, self.crop.scale, self.crop.ratio)
        choice = Choice(box, bool(torch.rand(1) < self.flip.p))
        if self.policy is not None:
            self.policy(choice)
        if self.jitter is not None:
            self._draw_jitter(choice)
        return choice

    def _draw_jitter(self, choice: Choice) -> None:
        jitter = self.jitter
        assert jitter is not None
        order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for number in order.tolist():
            if factors[number] is not None:
                name = ("Brightness", "Contrast", "Color")[number]
                choice.steps += STEPS[name](self.size, (), factors[number])

    def cropped(self, image: Pixels8, choice: Choice) -> Pixels8:
        """Return the chosen crop (h, w, 3) of an image (height, width, 3).

        Large ones are resized at once, which spares the device their memory.
        """
        top, left, height, width = choice.box
        crop = image[top : top + height, left : left + width]
        if height * width <= (LARGE * self.size) ** 2:
            return crop
        small = Image.fromarray(np.ascontiguousarray(crop)).resize(
            (self.size, self.size), Image.Resampling.BICUBIC
        )
        return np.asarray(small)


LARGE = 4
"""Number of times that a crop's sides may be longer than those of the result where the device resizes it."""


@dataclass
class Batch:
    """Crops that await their resizing, and the choices for them.

    Attributes:
        crops: (batch, H, W, 3), uint8, each at the top left of the room for the largest.
        sizes: height and width of each (batch, 2).
        choices: choices for each.
    """

    crops: Tensor
    sizes: Tensor
    choices: list[Choice]

    def pin_memory(self) -> Batch:
        """Return the same in memory from which a GPU copies on its own."""
        return Batch(self.crops.pin_memory(), self.sizes.pin_memory(), self.choices)


def collated(items: Sequence[tuple[Pixels8, Choice]]) -> Batch:
    """Return the batch of crops (h, w, 3) and their choices."""
    sizes = np.array([crop.shape[:2] for crop, _ in items])
    crops = torch.empty(len(items), *sizes.max(0).tolist(), 3, dtype=torch.uint8)
    held = crops.numpy()
    for number, (crop, _) in enumerate(items):
        held[number, : crop.shape[0], : crop.shape[1]] = crop
    return Batch(crops, torch.from_numpy(sizes), [choice for _, choice in items])


def computed(batch: Batch, size: int, device: torch.device) -> Tensor:
    """Compute on a device what was chosen: uint8 (batch, 3, size, size)."""
    images = pillow.resized(to_device(batch.crops, device), to_device(batch.sizes, device), size)
    flips = torch.tensor([choice.flip for choice in batch.choices])[:, None, None, None]
    images = torch.where(to_device(flips, device), images.flip(3), images)
    groups = _groups(batch.choices)
    if not groups:
        return images
    # One copy of all indices and one of all numbers, since each copy takes as long as many of them.
    indices = to_device(torch.tensor([i for _, held, _ in groups for i in held]), device)
    everything = to_device(
        torch.from_numpy(np.concatenate([n for group in groups for n in group[2]])), device
    )
    used = first = 0
    for name, held, numbers in groups:
        index, count = indices[used : used + len(held)], len(held) * len(numbers[0])
        rows = everything[first : first + count].view(len(held), len(numbers[0]))
        images.index_copy_(0, index, pillow.OPERATIONS[name](images.index_select(0, index), rows))
        used, first = used + len(held), first + count
    return images


def _groups(choices: Sequence[Choice]) -> list[tuple[str, list[int], list[Values]]]:
    """Return operations in their order, with the images that they change and the numbers for these."""
    groups: dict[tuple[int, str], tuple[list[int], list[Values]]] = {}
    for i, choice in enumerate(choices):
        for layer, (name, numbers) in enumerate(choice.steps):
            images, rows = groups.setdefault((layer, name), ([], []))
            images.append(i)
            rows.append(numbers)
    return [(name, *groups[layer, name]) for layer, name in sorted(groups)]


GREYS: Values = np.arange(256.0)
"""All values of a channel of a pixel."""


def _recording(policy: Any, size: int) -> Any:
    """Return a copy of a policy of timm that appends to a Choice what it would do to an image.

    Raises:
        LookupError: it has an operation that is not known here.
    """
    policy = copy.deepcopy(policy)
    operations = (
        policy.ops if isinstance(policy, RandAugment) else [op for held in policy.policy for op in held]
    )
    for operation in operations:
        if operation.name not in STEPS or operation.kwargs["resample"] != Image.Resampling.BICUBIC:
            raise LookupError(operation.name)
        operation.aug_fn = partial(_record, STEPS[operation.name], size)
    return policy


def _record(
    steps: Callable[..., list[Step]], size: int, choice: Choice, *numbers: float, **options: Any
) -> Choice:
    choice.steps += steps(size, options["fillcolor"], *numbers)
    return choice


def _table(value: Callable[..., Values]) -> Callable[..., list[Step]]:
    """Return the steps of an operation that maps each value of a pixel for itself."""
    return lambda size, fill, *numbers: [("table", np.asarray(value(GREYS, *numbers), np.float64))]


def _simple(name: str) -> Callable[..., list[Step]]:
    """Return the steps of an operation with at most one number."""
    return lambda size, fill, *numbers: [(name, np.array(numbers or (0.0,)))]


def _moved(matrix: Callable[..., Sequence[float]]) -> Callable[..., list[Step]]:
    """Return the steps of an operation that moves pixels by a matrix of its number and the size."""
    return lambda size, fill, number: [("affine", np.array((*matrix(number, size), *fill), np.float64))]


def _rotation(degrees: float, size: int) -> list[float]:
    """Return the coefficients with which Image.rotate calls Image.transform."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    centre = size / 2
    shift = [cos * -centre + sin * -centre + 0.0, -sin * -centre + cos * -centre + 0.0]
    return [cos, sin, shift[0] + centre, -sin, cos, shift[1] + centre]


def _bright(values: Values, factor: float) -> Values:
    """Return what Image.blend makes of black and these values."""
    return np.trunc(np.clip(np.float32(factor) * values.astype(np.float32), 0, 255)).astype(np.float64)


def _posterized(values: Values, bits: int) -> Values:
    return values - values % 2 ** max(0, 8 - bits)


STEPS: dict[str, Callable[..., list[Step]]] = {
    "AutoContrast": _simple("autocontrast"),
    "Equalize": _simple("equalize"),
    "Invert": _table(lambda values: 255 - values),
    "Rotate": _moved(_rotation),
    "Solarize": _table(lambda values, bound: np.where(values < bound, values, 255 - values)),
    "SolarizeAdd": _table(lambda values, add: np.where(values < 128, np.minimum(255, values + add), values)),
    "ShearX": _moved(lambda factor, size: (1, factor, 0, 0, 1, 0)),
    "ShearY": _moved(lambda factor, size: (1, 0, 0, factor, 1, 0)),
    "TranslateX": _moved(lambda pixels, size: (1, 0, pixels, 0, 1, 0)),
    "TranslateY": _moved(lambda pixels, size: (1, 0, 0, 0, 1, pixels)),
    "TranslateXRel": _moved(lambda part, size: (1, 0, part * size, 0, 1, 0)),
    "TranslateYRel": _moved(lambda part, size: (1, 0, 0, 0, 1, part * size)),
    "Posterize": _table(_posterized),
    "Color": _simple("color"),
    "Contrast": _simple("contrast"),
    "Brightness": _table(_bright),
    "Sharpness": _simple("sharpness"),
}
"""Steps of timm's operations by name, as functions of the side of the image, the color of what comes from
outside, and the number that timm chose."""
for _name in ("Solarize", "Posterize", "Color", "Contrast", "Brightness", "Sharpness"):
    STEPS[f"{_name}Increasing"] = STEPS[_name]
STEPS["PosterizeOriginal"] = STEPS["Posterize"]
