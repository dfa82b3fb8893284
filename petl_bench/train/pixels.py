"""From bytes of images to the backbone's input, on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from petl_bench.data.resample import bicubic
from petl_bench.types import NORMALIZATIONS


class Pixels:
    """Turns uint8 images (N, 1 or 3, H, W) into the backbone's input (N, 3, S, S) in float32.

    Images of another size than S are resized as PIL does it, bicubic on 8 bits; see petl_bench.data.resample.
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
