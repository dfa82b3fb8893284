"""Models from adapter files, ready to be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from petl_bench.errors import UserError, counted, out_of_memory
from petl_bench.packing import stated_settings
from petl_bench.train import Passes, Pixels
from petl_bench.use.files import Trained
from petl_bench.use.images import Image, Preparation
from petl_bench.use.merging import merged
from petl_bench.use.prediction import Prediction, Unreadable, predictions


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a model.

    Attributes:
        file: path of the adapter file.
        task: name of the task; empty if the file does not state it.
        classes: number of classes.
        adapter: name of the method.
        settings: settings of the method that are not its defaults.
        hidden, bits, float_bits, quantizer, scale, head: settings of the adapter and the head.
        compress: compression after training, or `none`.
        backbone: name of the backbone.
        image_size: height and width of the input in pixels.
        resize: how images are brought to this size: `stretch` or `crop`.
        normalization: normalization of the pixels.
        precision: precision in which the model computes.
        device: device on which it computes.
        bytes_file: size of the adapter file.
    """

    file: str
    task: str
    classes: int
    adapter: str
    settings: dict[str, Any]
    hidden: int
    bits: int
    float_bits: int
    quantizer: str
    scale: float
    head: str
    compress: str
    backbone: str
    image_size: int
    resize: str
    normalization: str
    precision: str
    device: str
    bytes_file: int


class Model:
    """A backbone with a trained adapter and head, for evaluation.

    Its parameters are frozen, and it stays on its device and in its precision.

    Args:
        trained: the adapter file.
        network: images (batch, 3, S, S) -> logits (batch, classes), both float32.
        precision: precision of the network.
        device: device of the network.

    Attributes:
        network: the module that computes the logits.
        class_names: names of the classes by label; empty if neither the file nor the manifest of its task
            states them.
        transform: torchvision transform of a PIL image to the input (3, S, S) of the network: the same pixels
            as in training and evaluation.
        info: facts of the model.
    """

    def __init__(self, trained: Trained, network: nn.Module, precision: str, device: torch.device) -> None:
        self.network = network.eval()
        self.class_names = trained.class_names
        self._trained, self._prepare = trained, Preparation(trained)
        self.transform: v2.Transform = self._prepare.transform
        self._device = device
        self._pixels = Pixels(trained.facts.normalization, trained.backbone.image_size, device)
        self._passes = Passes(self.network, self._pixels)
        self.info = _info(trained, precision, device)

    def __repr__(self) -> str:
        i = self.info
        return (
            f"Model({i.adapter} of {i.hidden} hidden units at {i.bits} bits on {i.backbone}, "
            f"task {i.task or 'unknown'}, {counted(i.classes, 'class')}, {i.precision} on {i.device})"
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes), float32, for images that `transform` has prepared.

        Gradients can flow to the images, except under `torch.inference_mode()`.

        Args:
            images: (batch, 3, S, S), floating point, on any device.

        Raises:
            UserError: the images have another shape or type.
        """
        size = self.info.image_size
        if images.shape[1:] != (3, size, size) or not images.is_floating_point():
            raise UserError(
                f"images must be a batch (N, 3, {size}, {size}) of floating-point numbers as `transform` "
                f"returns them, not {images.dtype} of shape {tuple(images.shape)}"
            )
        logits: Tensor = self.network(images.to(self._device, torch.float32))
        return logits

    def predict(
        self, images: Image | Iterable[Image], top: int = 1, batch_size: int | None = None
    ) -> list[Prediction]:
        """Return the most probable classes of images.

        Files are read in threads while the model computes.

        Args:
            images: paths of image files, or PIL images; or a single one.
            top: number of classes of each prediction.
            batch_size: images that pass through the model together; None: as in `petl-bench eval`, where on
                a GPU they are as many as its memory holds.

        Returns:
            One prediction per image, in order.

        Raises:
            UserError: an image cannot be read, the task has fewer than `top` classes, or a batch of
                `batch_size` images does not fit into the memory of a GPU.
        """
        found = []
        for prediction in self.predictions(images, top, batch_size):
            if isinstance(prediction, Unreadable):
                raise UserError(prediction.reason)
            found.append(prediction)
        return found

    def predictions(
        self, images: Image | Iterable[Image], top: int = 1, batch_size: int | None = None
    ) -> Iterator[Prediction | Unreadable]:
        """Yield what `predict` returns as it is computed; for an image that cannot be read, the reason."""
        chosen = [images] if isinstance(images, str | Path | PIL.Image.Image) else list(images)
        classes = self.info.classes
        if not 1 <= top <= classes:
            raise UserError(
                f"top={top}: must be from 1 to {classes}, the number of classes of {self.info.file}"
            )
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        logits = self._logits if batch_size is None else self._logits_at_once
        size = batch_size or self._passes.size
        return predictions(self._prepare, logits, chosen, self.class_names, top, size)

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        """Return logits for images (batch, 3, S, S), uint8."""
        return torch.cat([*self._passes(images)])

    @torch.inference_mode()
    def _logits_at_once(self, images: Tensor) -> Tensor:
        """Return logits for a batch (batch, 3, S, S), uint8, of the size that the user has chosen.

        Raises:
            UserError: it does not fit into the memory of a GPU.
        """
        try:
            logits: Tensor = self.network(self._pixels(images.to(self._device)))
        except RuntimeError as error:
            if self._device.type != "cuda" or not out_of_memory(error):
                raise
            raise UserError(
                f"batch_size={len(images)}: these images do not fit into the memory of {self._device}; "
                "choose fewer, or leave it out to have them chosen"
            ) from error
        return logits

    def merge(self) -> nn.Module:
        """Return a plain timm model with adapter and head in its own weights: float32, on the CPU, frozen.

        It is the model that `timm.create_model(NAME, num_classes=CLASSES)` makes, and needs nothing of
        petl-bench. It computes the logits of fp32 up to rounding.

        Raises:
            UserError: the method adds what is no weight of the backbone, so that it cannot be merged.
        """
        return merged(self._trained)


def _info(trained: Trained, precision: str, device: torch.device) -> ModelInfo:
    facts = trained.facts
    return ModelInfo(
        trained.where,
        facts.task,
        facts.model.classes,
        facts.model.adapter.name,
        stated_settings(trained.file, trained.where),
        facts.model.hidden,
        facts.model.bits,
        facts.model.float_bits,
        facts.model.quantizer,
        facts.model.scale,
        facts.model.head,
        facts.model.compress,
        trained.backbone.display_name,
        trained.backbone.image_size,
        trained.resize,
        facts.normalization,
        precision,
        str(device),
        trained.size,
    )
