"""Show that the tasks of suite `pocket19` can be learned: `python -m petl_bench.dev.upper_bound`.

A plain convolutional network without pretraining is trained on ten times the training images of each task,
and is evaluated once on the task's test images. Its accuracy is written into the task's manifest, from which
the table in docs/data.md is made. It shows what can be reached at least, given the images.
"""

from __future__ import annotations

import argparse
import re
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_bench.data import MANIFEST_DIR, Split, generate, manifests
from petl_bench.data.pocket19 import DRAWS, part

IMAGES = 10_000
EPOCHS = 5
BATCH = 100
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2


def network(classes: int) -> nn.Module:
    """Return a network of three convolutions with batch normalization, and two linear layers.

    Args:
        classes: number of outputs.
    """
    layers: list[nn.Module] = []
    channels = 1
    for width, size, stride in ((24, 5, 2), (48, 3, 2), (96, 3, 2)):
        layers += [
            nn.Conv2d(channels, width, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(96 * 16, 128), nn.ReLU(), nn.Linear(128, classes)
    )


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, 32, 32), normalized to mean 0 and standard deviation 1 each, and labels (N,)."""
    images = torch.as_tensor(split.images).float()
    mean, deviation = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
    return (images - mean) / (deviation + 1), torch.as_tensor(split.labels)


def bound(name: str, epochs: int) -> float:
    """Train on ten times the images and return the accuracy on the task's test images.

    Args:
        name: name of the task.
        epochs: passes over the training images.
    """
    torch.manual_seed(0)
    manifest = manifests()[name]
    images, labels = tensors(part(name, IMAGES, test=False))
    model = network(manifest.classes).to(memory_format=torch.channels_last)  # quicker on processors
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (IMAGES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(IMAGES).split(BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, labels = tensors(generate(manifest.source, manifest.splits)["test"])
    with torch.inference_mode():
        return (torch.cat([model(x) for x in images.split(500)]).argmax(1) == labels).float().mean().item()


def note(name: str, accuracy: float) -> None:
    """Write an accuracy into the manifest of a task.

    Args:
        name: name of the task.
        accuracy: from 0 to 1.
    """
    path = MANIFEST_DIR / f"{name}.yaml"
    text = re.sub(r"(?m)^  upper_bound: .*\n", "", path.read_text())
    path.write_text(text + f'  upper_bound: "{100 * accuracy:.1f}"\n')


def main() -> None:
    """Find the bounds of the tasks that are named, or of all, and write them into their manifests."""
    parser = argparse.ArgumentParser(
        description="Train a plain network on ten times the images of each task."
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("tasks", nargs="*", default=list(DRAWS), help="names of tasks; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tasks:
        begin = time.perf_counter()
        accuracy = bound(name, arguments.epochs)
        note(name, accuracy)
        print(f"{name}: {100 * accuracy:.1f} % in {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
