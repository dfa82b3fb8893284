"""Conversion of uint8 images to the input of a backbone, on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from petl_bench.data.resample import bicubic
from petl_bench.types import NORMALIZATIONS


class Pixels:
    """Convert uint8 images (N, 1 or 3, H, W) to the float32 input (N, 3, S, S) of a backbone.

    Images of another size than S are resized as Pillow does it, bicubic with 8-bit arithmetic; see
    petl_bench.data.resample. Gray images are repeated in three channels.

    Args:
        normalization: name in petl_bench.types.NORMALIZATIONS.
        size: S, in pixels.
        device: device of the images and of the result.
    """

    def __init__(self, normalization: str, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.plain = normalization == "none"
        mean, std = NORMALIZATIONS[normalization]
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.std = torch.tensor(std, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (bicubic(images, self.size, self.size).float() / 255).expand(-1, 3, -1, -1)
        return pixels.contiguous() if self.plain else (pixels - self.mean) / self.std


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Copy images to a device; copies to a GPU are asynchronous."""
    if device.type != "cuda":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)
