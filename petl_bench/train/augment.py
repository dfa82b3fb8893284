"""Augmentation of training images by timm's transforms, independent of the number of processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from petl_bench.train.choices import Choice, Choices, collated, computed
from petl_bench.train.pixels import to_device
from petl_bench.types import AugmentSpec, TrainSpec

CPU = torch.device("cpu")
Normalization = tuple[tuple[float, ...], tuple[float, ...]]


def transform(spec: AugmentSpec, size: int, normalization: Normalization) -> Any:
    """Return timm's training transform: PIL image -> uint8 (3, size, size).

    Args:
        spec: augmentation of single images.
        size: height and width of the result, in pixels.
        normalization: mean and std of each channel, for policies that fill areas with the mean.

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
            use_prefetcher=True,  # the transform returns bytes; normalization is done on the device
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f"train.augment.auto_augment={spec.auto_augment}: timm has no such policy; for example "
            "rand-m9-mstd0.5-inc1"
        ) from error


class AugmentedImages(Dataset[Any]):
    """Data set of randomly cropped, flipped and recolored images, each uint8 (3, size, size).

    An item is addressed by (epoch, index); its random numbers depend only on these and the seed. For a GPU an
    item is a crop and the choices for it, and the GPU computes the same pixels for whole batches.

    Args:
        images: decoded images, of one size or of their own sizes.
        spec: augmentation of single images.
        size: height and width of the result, in pixels.
        normalization: mean and std of each channel.
        seed: seed of the augmentation.
        device: device of the batches.

    Attributes:
        choices: how choices are drawn for a GPU; None: timm's transform is executed here, as for a CPU and
            for policies that are not known there.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | Ragged,
        spec: AugmentSpec,
        size: int,
        normalization: Normalization,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        self.images, self.seed, self.device = images, seed, device
        self.offsets = images.offsets() if isinstance(images, Ragged) else None
        self.transform = transform(spec, size, normalization)
        self.choices: Choices | None = None
        if device.type == "cuda":
            with suppress(LookupError):
                self.choices = Choices(self.transform)

    def batches(self, order: Tensor, loaders: int, begin: int = 0) -> Iterator[Tensor]:
        """Return an iterator over batches (batch, 3, size, size) on the device.

        Args:
            order: indices of the images (epochs, batches, batch).
            loaders: processes that augment images, the same ones in all epochs; 0: this process.
            begin: first epoch.
        """
        epochs = enumerate(order[begin:], begin)
        wanted = [[(epoch, int(i)) for i in batch] for epoch, held in epochs for batch in held]
        # A loader first draws from its generator, by default torch's global one, which dropout uses too. A
        # resumed training has made that draw already.
        generator = torch.Generator() if begin else None
        loader = DataLoader(
            self,
            batch_sampler=wanted,
            num_workers=loaders,
            generator=generator,
            pin_memory=self.device.type == "cuda",
            collate_fn=None if self.choices is None else collated,
        )
        if self.choices is None:
            return (to_device(batch, self.device) for batch in iter(loader))
        return (computed(batch, self.choices.size, self.device) for batch in iter(loader))

    def __getitem__(self, item: tuple[int, int]) -> Tensor | tuple[NDArray[np.uint8], Choice]:
        epoch, index = item
        with _seeds(self.seed, epoch, index):
            if self.choices is not None:
                image = self._image(index)
                choice = self.choices.draw(*image.shape[:2])
                return self.choices.cropped(image, choice), choice
            return torch.as_tensor(self.transform(Image.fromarray(self._image(index))))

    def _image(self, index: int) -> NDArray[np.uint8]:
        """Return an image (height, width, 3)."""
        images = self.images
        if isinstance(images, Ragged):
            assert self.offsets is not None
            flat = images.flat[self.offsets[index] : self.offsets[index + 1]]
            return flat.reshape(images.heights[index], images.widths[index], 3)
        image = images[index].transpose(1, 2, 0)
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _seed(*numbers: int) -> int:
    return np.random.SeedSequence(numbers).generate_state(1)[0].item()


@contextmanager
def _seeds(*numbers: int) -> Iterator[None]:
    """Seed all three generators that timm and torchvision use, and restore their states at the end."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    seed = _seed(*numbers)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # on the CPU only; the generator of a GPU is not used here
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


class ErasingOnGPU:
    """Random erasing of a batch of images on a GPU, without a wait of the host for it.

    The areas are those that timm's RandomErasing chooses on the CPU for the same seed; they are filled with
    standard normal numbers of the GPU's own generator.

    Args:
        probability: probability that a part of an image is erased.
        device: the GPU.

    Attributes:
        generator: generator of the numbers, to be seeded for each batch.
    """

    def __init__(self, probability: float, device: torch.device) -> None:
        self.areas = RandomErasing(probability, mode="const", max_count=1, device="cpu")
        self.generator = torch.Generator(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (batch, 3, S, S) with areas of some of them replaced."""
        kept = self.areas(torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool))
        noise = torch.randn(images.shape, generator=self.generator, device=images.device, dtype=images.dtype)
        return torch.where(to_device(kept, images.device), images, noise)


class BatchAugmentation:
    """Augmentation of whole batches: random erasing, mixup or CutMix, and label smoothing.

    Args:
        recipe: recipe with the augmentation and the batch size.
        classes: number of classes; needed only for mixup and CutMix.
        seed: seed of the augmentation.
        device: device of the images.
        step: number of steps of the training that have been made; with the seed it determines the random
            numbers of the next batch.
    """

    def __init__(
        self, recipe: TrainSpec, classes: int, seed: int, device: torch.device, step: int = 0
    ) -> None:
        spec = recipe.augment
        self.seed, self.step, self.smoothing = seed, step, spec.smoothing
        self.erase: RandomErasing | ErasingOnGPU | None = None
        self.mix: Mixup | None = None
        if spec.erasing and device.type == "cuda":
            self.erase = ErasingOnGPU(spec.erasing, device)
        elif spec.erasing:
            self.erase = RandomErasing(spec.erasing, mode="pixel", max_count=1, device=str(device))
        if spec.mixup or spec.cutmix:
            self.mix = Mixup(spec.mixup, spec.cutmix, label_smoothing=spec.smoothing, num_classes=classes)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: (batch, 3, S, S).
            labels: (batch,).

        Returns:
            Images (batch, 3, S, S), and labels (batch,) or, if mixed, class probabilities (batch, classes).
        """
        self.step += 1
        if self.erase is None and self.mix is None:
            return images, labels
        if isinstance(self.erase, ErasingOnGPU):
            self.erase.generator.manual_seed(_seed(self.seed, self.step))
        with _seeds(self.seed, self.step):
            images = images if self.erase is None else self.erase(images)
            return (images, labels) if self.mix is None else self.mix(images, labels)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of logits (batch, classes), with label smoothing.

        Mixed targets are smoothed when they are mixed.
        """
        return F.cross_entropy(logits, target, label_smoothing=0.0 if self.mix else self.smoothing)
