"""Pretrain the bundled `pocket` backbone: `python -m petl_bench.dev.pretrain --fashion-mnist DIR`.

The backbone learns one joint classification of two sources:

* Fashion-MNIST, 10 classes of clothing (60,000 real images; the four `.gz` files of the data set, for
  example from Debian's package dataset-fashion-mnist);
* contour categories, 54 closed curves r(theta) = 1 + sum_k a_k cos(k theta + phi_k) whose amplitudes
  and phases define the class, drawn without end at random position, size, tilt, stroke and contrast.

Neither source contains digits, squares, ellipses, hearts, photographs of surfaces or scenes of several
shapes, and no label depends on position, orientation or count, so the bundled suite remains unseen.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from petl_bench.backbones import weights
from petl_bench.backbones.creation import create
from petl_bench.config import group_config
from petl_bench.errors import UserError
from petl_bench.types import BackboneSpec

STEPS = 20_000
BATCH = 128
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
WARMUP = 0.05  # fraction of the steps
HELD_OUT = 4_000  # images of the final evaluation, half from each source

FASHION_CLASSES = 10
CONTOUR_CLASSES = 54
HARMONICS = 6
SIZE = 32


def read_fashion(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read images (N, 28, 28) in [0, 1] and labels (N,) from Fashion-MNIST's `train` or `t10k` files."""
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, 28, 28)
    return images.float() / 255, torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Draw numbers of the given shape from the uniform distribution on [low, high)."""
    return torch.rand(shape, generator=generator) * (high - low) + low


class Contours:
    """Contour categories, of which `draw` renders batches.

    The categories depend only on `seed`, so that training and held-out batches, which use different
    generators, show the same ones.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.arange(2, 2 + HARMONICS)
        amplitude = torch.rand(CONTOUR_CLASSES, HARMONICS, generator=generator) ** 5 / order**0.5
        self.amplitude = amplitude / amplitude.sum(1, keepdim=True) * 0.75
        self.phase = torch.rand(CONTOUR_CLASSES, HARMONICS, generator=generator) * 2 * math.pi
        self.order = order

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw images (count, 32, 32) in [0, 1] and labels (count,) in [0, 54)."""
        label = torch.randint(CONTOUR_CLASSES, (count,), generator=generator)
        column = (count, 1, 1)
        x = torch.arange(SIZE) + 0.5 - uniform(generator, column, 10, 22)
        y = torch.arange(SIZE)[:, None] + 0.5 - uniform(generator, column, 10, 22)
        radius = uniform(generator, column, 5, 12)
        angle = torch.atan2(y, x) - uniform(generator, column, -0.4, 0.4)
        curve = torch.ones(count, SIZE, SIZE)
        for k in range(HARMONICS):
            amplitude, phase = self.amplitude[label, k], self.phase[label, k]
            curve += amplitude[:, None, None] * torch.cos(angle * self.order[k] + phase[:, None, None])
        distance = (curve - torch.hypot(x, y) / radius) * radius  # approximately in pixels, positive inside
        filled = (distance + 0.5).clamp(0, 1)
        stroke = uniform(generator, column, 0.8, 2.0)
        outline = (stroke - distance.abs() + 0.5).clamp(0, 1)
        shape = torch.where(torch.rand(column, generator=generator) < 0.5, filled, outline)
        return self.shade(shape, x, y, generator), label

    def shade(self, shape: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Give shape and background random grey levels, and one of them a grating half of the time."""
        column = (shape.shape[0], 1, 1)
        tilt, pitch = uniform(generator, column, 0, math.pi), uniform(generator, column, 0.5, 2.0)
        grating = 0.5 + 0.5 * torch.sin((x * torch.cos(tilt) + y * torch.sin(tilt)) * pitch)
        strength = uniform(generator, column, 0, 0.3) * (torch.rand(column, generator=generator) < 0.5)
        on_figure = (torch.rand(column, generator=generator) < 0.5).float()
        texture = 1 - strength * grating * (on_figure * shape + (1 - on_figure) * (1 - shape))
        return shape * texture + (1 - shape) * (1 - texture) * 0.7


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply random contrast, polarity and noise to images (N, 32, 32) in [0, 1]."""
    column = (images.shape[0], 1, 1)
    low = uniform(generator, column, 0, 0.3)
    images = low + images * (uniform(generator, column, 0.6, 1.0) - low)
    images = torch.where(torch.rand(column, generator=generator) < 0.3, 1 - images, images)
    noise = torch.randn(images.shape, generator=generator) * uniform(generator, column, 0, 0.05)
    return (images + noise).clamp(0, 1)


def place(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put images (N, 28, 28) on a 32x32 canvas at random scale and position, mirrored at random."""
    count = images.shape[0]
    zoom = uniform(generator, (count,), 1.0, 1.7)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * flip, zoom
    theta[:, :, 2] = uniform(generator, (count, 2), -0.5, 0.5) * (zoom[:, None] - 0.9)
    grid = F.affine_grid(theta, [count, 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


class Mixture:
    """Batches of clothing and contours in equal parts.

    Args:
        images: images of clothing, (N, 28, 28) in [0, 1].
        labels: classes of clothing, (N,).
        seed: seed of all random draws.
    """

    def __init__(self, images: Tensor, labels: Tensor, seed: int) -> None:
        self.images, self.labels = images, labels
        self.contours = Contours()
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw images (count, 3, 32, 32) in [0, 1] and joint labels (count,)."""
        index = torch.randint(len(self.labels), (count // 2,), generator=self.generator)
        clothing = place(self.images[index], self.generator)
        drawn, category = self.contours.draw(count - count // 2, self.generator)
        pixels = jitter(torch.cat([clothing, drawn]), self.generator)
        labels = torch.cat([self.labels[index], category + FASHION_CLASSES])
        return pixels[:, None].expand(-1, 3, -1, -1).contiguous(), labels


def pretrain(fashion: Path, steps: int) -> tuple[nn.Module, dict[str, float]]:
    """Train the backbone with AdamW, a one-cycle cosine schedule, float32 and no drop-path.

    Args:
        fashion: folder of the Fashion-MNIST files.
        steps: number of training steps.

    Returns:
        The backbone, and its accuracy on held-out images of each source.
    """
    torch.manual_seed(0)
    spec = BackboneSpec(**group_config("backbone", "pocket") | {"weights": "random"})
    model = create(spec, drop_path=0.0)
    network = nn.Sequential(model, nn.Linear(spec.options["embed_dim"], FASHION_CLASSES + CONTOUR_CLASSES))
    mixture = Mixture(*read_fashion(fashion, "train"), seed=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARMUP
    )
    for _ in track(range(steps), "pretraining"):
        images, labels = mixture.batch(BATCH)
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    images, labels = Mixture(*read_fashion(fashion, "t10k"), seed=2).batch(HELD_OUT)
    with torch.inference_mode():
        right = (network(images).argmax(1) == labels).float()
    half = HELD_OUT // 2
    return model, {"fashion": right[:half].mean().item(), "contours": right[half:].mean().item()}


CARD = """# Backbone `pocket`

A plain vision transformer of timm (conf/backbone/pocket.yaml): {parameters:,} parameters, 32x32 RGB input
in [0, 1] without normalization, features of the class token.

- Data: Fashion-MNIST (60,000 images, MIT licence) and {contours} formula-drawn contour categories, half and
  half, with random place, size, tilt, contrast, polarity and noise; petl_bench/dev/pretrain.py draws them.
- Recipe: {steps:,} steps of batch {batch}, AdamW, learning rate {rate}, weight decay {decay}, one-cycle
  cosine, float32, seed 0. `make pocket-backbone` runs it again.
- Made: {date}, torch {torch}. The last digits depend on the machine and the torch version; the file here
  is the reference.
- Held-out accuracy over all {classes} classes, same augmentation: Fashion-MNIST test images
  {fashion:.1%}, new drawings of the contours {shapes:.1%}.
- Weights: `pocket.safetensors`, float16, {bytes:,} bytes, SHA-256 `{sha256}`.
- Limits: it has seen grey clothing and single closed curves, nothing else. It serves to compare adapters
  on the bundled suite, and for nothing in the world outside.
"""


def main() -> None:
    """Train the backbone and write its weights and its card."""
    parser = argparse.ArgumentParser(description="Pretrain the bundled backbone.")
    parser.add_argument(
        "--fashion-mnist", type=Path, required=True, help="folder of the four .gz files of Fashion-MNIST"
    )
    parser.add_argument("--out", type=Path, default=weights.ASSETS)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    if not (arguments.fashion_mnist / "train-images-idx3-ubyte.gz").is_file():
        raise UserError(f"{arguments.fashion_mnist}: train-images-idx3-ubyte.gz is missing")
    model, accuracy = pretrain(arguments.fashion_mnist, arguments.steps)
    path = arguments.out / "pocket.safetensors"
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)
    path.chmod(0o644)
    card = CARD.format(
        parameters=sum(p.numel() for p in model.parameters()),
        contours=CONTOUR_CLASSES,
        steps=arguments.steps,
        batch=BATCH,
        rate=LEARNING_RATE,
        decay=WEIGHT_DECAY,
        date=datetime.date.today().isoformat(),
        torch=torch.__version__,
        classes=FASHION_CLASSES + CONTOUR_CLASSES,
        fashion=accuracy["fashion"],
        shapes=accuracy["contours"],
        bytes=path.stat().st_size,
        sha256=weights.checksum(path),
    )
    path.with_suffix(".md").write_text(card)


if __name__ == "__main__":
    main()
