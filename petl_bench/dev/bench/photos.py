"""JPEG files that take as long to decode as photographs, in the layout of `task=folder`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 500, 375
"""Size of many photographs of the benchmark's natural tasks, in pixels."""


def photo(number: int) -> Image.Image:
    """Draw smooth colours, a few shapes and grain; each number gives a different picture."""
    random = np.random.RandomState(number)
    smooth = Image.fromarray(random.randint(0, 256, (6, 8, 3)).astype(np.uint8))
    image = smooth.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = int(random.randint(WIDTH)), int(random.randint(HEIGHT))
        box = (left, top, left + int(random.randint(10, 150)), top + int(random.randint(10, 150)))
        colour = (int(random.randint(256)), int(random.randint(256)), int(random.randint(256)))
        (draw.ellipse if random.rand() < 0.5 else draw.rectangle)(box, fill=colour)
    grain = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def validation(training: int) -> int:
    """Return how many of the training images are val: a fifth, at least one."""
    return max(1, training // 5)


def write_task(root: Path, training: int, test: int, classes: int) -> None:
    """Write a folder of photos in VTAB's layout; see `validation`.

    Args:
        root: folder to fill.
        training: number of training images, val included.
        test: number of test images.
        classes: number of classes.
    """
    val = validation(training)
    counts = {"train800": training - val, "val200": val, "test": test}
    lines: dict[str, list[str]] = {}
    number = 0
    for part, count in counts.items():
        (root / "images" / part).mkdir(parents=True)
        lines[part] = []
        for index in range(count):
            name = f"images/{part}/{index:06d}.jpg"
            photo(number).save(root / name, quality=90)
            lines[part].append(f"{name} {number % classes}\n")
            number += 1
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for part, entries in lines.items():
        (root / f"{part}.txt").write_text("".join(entries))
