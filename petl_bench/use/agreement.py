"""Comparison of an exported model's logits with those of the adapted model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from petl_bench.errors import UserError

TOLERANCE = 1e-4
"""Largest difference of an exported model's logits, relative to the largest logit."""


def random_images(count: int, size: int) -> Tensor:
    """Return images (count, 3, size, size) with a mean of 0 and a std of 1, the same at each call."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@torch.inference_mode()
def require_equal_logits(
    model: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], size: int, refusal: str
) -> None:
    """Refuse an exported model whose logits differ, for batches of 1 and of 3 images.

    Args:
        model: images (batch, 3, size, size) -> logits (batch, classes).
        exported: the same function, exported.
        size: side of the images in pixels.
        refusal: first part of the message.

    Raises:
        UserError: the logits differ by more than TOLERANCE of the largest.
    """
    for count in (1, 3):
        images = random_images(count, size)
        expected = model(images)
        difference = float((exported(images) - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"{refusal}: it would compute other logits: they differ by {difference:.1e} of the largest, "
                f"more than {TOLERANCE}"
            )
