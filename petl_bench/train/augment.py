"""Random changes of training images through timm's transforms, the same for any number of processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from petl_bench.data import Ragged
from petl_bench.errors import UserError
from petl_bench.types import AugmentSpec, TrainSpec

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


def transform(spec: AugmentSpec, size: int, normalization: Normalization) -> Any:
    """timm's training transform: a PIL image -> uint8 (3, size, size).

    Raises:
        UserError: timm has no such `auto_augment` policy.
    """
    try:
        return create_transform(
            size,
            is_training=True,
            color_jitter=spec.color_jitter,
            auto_augment=spec.auto_augment or None,
            interpolation="bicubic",
            mean=normalization[0],
            std=normalization[1],
            use_prefetcher=True,  # the transform ends with bytes: normalization is the device's
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f"train.augment.auto_augment={spec.auto_augment}: timm has no such policy; for example "
            "rand-m9-mstd0.5-inc1"
        ) from error


class Augmented(Dataset[Tensor]):
    """Crops, flips and colours of one image at a time, as uint8 (3, size, size).

    An item is asked for as (epoch, index); its random numbers follow from these and the seed alone.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | Ragged,
        spec: AugmentSpec,
        size: int,
        normalization: Normalization,
        seed: int,
    ) -> None:
        self.images, self.seed = images, seed
        self.offsets = images.offsets() if isinstance(images, Ragged) else None
        self.transform = transform(spec, size, normalization)

    def batches(self, schedule: Tensor, loaders: int, begin: int = 0) -> Iterator[Tensor]:
        """(batch, 3, size, size) for every row of indices of a schedule (epochs, batches, batch).

        Args:
            begin: the epoch to begin with.
        """
        epochs = enumerate(schedule[begin:], begin)
        wanted = [[(epoch, int(i)) for i in batch] for epoch, held in epochs for batch in held]
        # A loader begins with a draw of its generator, by default torch's own, from which dropout draws, too:
        # a training that goes on has that draw behind it.
        generator = torch.Generator() if begin else None
        return iter(DataLoader(self, batch_sampler=wanted, num_workers=loaders, generator=generator))

    def __getitem__(self, item: tuple[int, int]) -> Tensor:
        epoch, index = item
        with _seeded(self.seed, epoch, index):
            return torch.as_tensor(self.transform(Image.fromarray(self._image(index))))

    def _image(self, index: int) -> NDArray[np.uint8]:
        """(height, width, 3)."""
        images = self.images
        if isinstance(images, Ragged):
            assert self.offsets is not None
            flat = images.flat[self.offsets[index] : self.offsets[index + 1]]
            return flat.reshape(images.heights[index], images.widths[index], 3)
        image = images[index].transpose(1, 2, 0)
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """All three generators that timm and torchvision draw from, set for a while and put back."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    seed = np.random.SeedSequence(numbers).generate_state(1)[0].item()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # the CPU's alone: a GPU's goes on with its own numbers
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


class Mixing:
    """What happens to whole batches before the model sees them: erasing, mixup or cutmix, smoothing.

    Attributes:
        step: of the training, from which the random numbers of a batch follow.

    Raises:
        UserError: mixup or cutmix of an odd number of images.
    """

    def __init__(
        self, recipe: TrainSpec, classes: int, seed: int, device: torch.device, step: int = 0
    ) -> None:
        spec = recipe.augment
        self.seed, self.step, self.smoothing = seed, step, spec.smoothing
        self.erase = self.mix = None
        if spec.erasing:
            self.erase = RandomErasing(spec.erasing, mode="pixel", max_count=1, device=device.type)
        if spec.mixup or spec.cutmix:
            if recipe.batch_size % 2:
                raise UserError(f"train.batch_size={recipe.batch_size}: mixup and cutmix need an even number")
            self.mix = Mixup(spec.mixup, spec.cutmix, label_smoothing=spec.smoothing, num_classes=classes)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) and labels (N,), or, mixed, the probabilities of each class (N, classes)."""
        self.step += 1
        if self.erase is None and self.mix is None:
            return images, labels
        with _seeded(self.seed, self.step):
            images = images if self.erase is None else self.erase(images)
            return (images, labels) if self.mix is None else self.mix(images, labels)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy; of mixed targets, which are smooth already, as they are."""
        return F.cross_entropy(logits, target, label_smoothing=0.0 if self.mix else self.smoothing)
