"""Training loop of the reference, which decodes every image file again whenever it needs it.

Like the released code it evaluates the test images several times during training and keeps the best accuracy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from petl_bench.dev.bench.reference import Reference
from petl_bench.train.evaluation import evaluation_batch


class Files(Dataset[tuple[Tensor, int]]):
    """Images of a list file with labels; images are float32 of shape (3, side, side) in [0, 1]."""

    def __init__(self, root: Path, part: str, side: int) -> None:
        entries = [line.rsplit(" ", 1) for line in (root / f"{part}.txt").read_text().splitlines()]
        self.paths = [root / name for name, _ in entries]
        self.labels = [int(label) for _, label in entries]
        self.side = side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            square = image.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        return pixels.float() / 255, self.labels[index]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """Make one training step in float32."""
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader[tuple[Tensor, int]], device: str) -> float:
    """Return the fraction of images that are classified correctly."""
    model.eval()
    right = 0
    for images, labels in batches:
        right += int((model(images.to(device)).argmax(1) == cast(Tensor, labels).to(device)).sum())
    return right / len(cast(Files, batches.dataset))


def optimizer_of(model: Reference) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters."""
    return torch.optim.AdamW(model.trainable, lr=1e-3, weight_decay=1e-4)


def train(
    model: Reference, root: Path, side: int, epochs: int, evaluations: int, batch: int, device: str
) -> float:
    """Train a model and return the best of its test accuracies. Evaluation batches have petl_bench's size.

    Four processes load images on a GPU, as in the released code. On the CPU there are none, because they
    would compete with the training for its cores.

    Args:
        model: model with a linear head.
        root: folder of the images and their lists.
        side: image size in pixels.
        epochs: number of training epochs.
        evaluations: number of evaluations of all test images, at equal intervals.
        batch: training batch size.
        device: device to train on.
    """
    loaders = 4 if device.startswith("cuda") else 0
    training, test = (Files(root, part, side) for part in ("train800val200", "test"))
    batches = DataLoader(training, batch, shuffle=True, drop_last=True, num_workers=loaders)
    evaluated = DataLoader(test, evaluation_batch(side, torch.device(device)), num_workers=loaders)
    model.to(device)
    optimizer = optimizer_of(model)
    best = 0.0
    for epoch in range(epochs):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * (1 + math.cos(math.pi * epoch / epochs))
        for images, labels in batches:
            step(model, optimizer, images.to(device), labels.to(device))
        if (epoch + 1) % max(1, epochs // evaluations) == 0:
            best = max(best, accuracy(model, evaluated, device))
    return best
