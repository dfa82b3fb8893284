"""Write the stand-ins of this folder: `python -m tests.golden.make` at the top of the repository.

Nothing here imports petl_bench. Checkpoints are written by tests/reference/released.py, lists and their
hashes by this file. NumPy's RandomState keeps its streams in every release, so the files never change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from tests.reference import released

FOLDER = Path(__file__).parent

CHECKPOINTS = [
    # method, data set, classes, hidden, scale
    ("adaptformer", "patch_camelyon", 2, 1, 0.1),
    ("adaptformer-bihead", "kitti", 4, 4, 10.0),
    ("lora", "patch_camelyon", 2, 1, 100.0),
    ("lora-bihead", "kitti", 4, 2, 1.0),
]
FLIPPED = 0.05
"""Fraction of the signs of a hidden unit that differ from those of the first unit: trained units resemble
each other."""


def signs(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Return signs of a matrix whose hidden units, along its short side, resemble each other."""
    long, short = max(shape), min(shape)
    first = random.random_sample(long) < 0.5
    units = [first, *(first ^ (random.random_sample(long) < FLIPPED) for _ in range(short - 1))]
    return np.stack(units) if shape[0] == short else np.stack(units, 1)


def checkpoint(method: str, classes: int, hidden: int) -> dict[str, object]:
    """Return the tensors of a made-up checkpoint, as tests.reference.released.write takes them."""
    random = np.random.RandomState(hidden + 100 * len(method))
    found: dict[str, object] = {}
    for name, shape in released.shapes(method, hidden, classes).items():
        if released.in_one_bit(name, method):
            mean, std = np.float32(random.uniform(-1e-3, 1e-3)), np.float32(random.uniform(0.01, 0.1))
            found[name] = (signs(random, shape), float(mean), float(std))
        else:
            found[name] = random.normal(0, 0.02, shape).astype(np.float32)
    return found


def checkpoints() -> dict[str, bytes]:
    """Return path -> content of every .bin and .yaml, named as the released files are."""
    found = {}
    for method, dataset, classes, hidden, scale in CHECKPOINTS:
        name = f"petl-vit/{method}/{dataset}-bit1-dim{hidden}"
        found[f"{name}.bin"] = released.write(checkpoint(method, classes, hidden), method)
        lines = [
            "backbone: vit_base_patch16_224_in21k",
            "bit: 1",
            f"dataset: {dataset}",
            f"dim: {hidden}",
            f"method: {method}",
            f"num_class: {classes}",
            f"scale: {scale}",
        ]
        found[f"{name}.yaml"] = "".join(f"{line}\n" for line in lines).encode()
    return found


CLASSES, TRAIN, VAL, TEST = 5, 24, 3, 4
"""Classes of the few-shot set, and images of each in training, val and test."""
SHOTS, SEEDS = (1, 2, 4, 8, 16), (0, 1, 2)


def few_shot_lists() -> dict[str, str]:
    """Return name -> content of every list.

    The lists of one shot name each image twice, as those of oxford-pets do.
    """

    def text(images: list[tuple[int, int]]) -> str:
        return "".join(f"breed_{label}_{number}.jpg {label}\n" for label, number in images)

    found = {}
    for shots in SHOTS:
        for seed in SEEDS:
            random = np.random.RandomState(100 * shots + seed)
            drawn = [
                (label, n) for label in range(CLASSES) for n in sorted(random.permutation(TRAIN)[:shots])
            ]
            if shots == 1:
                drawn = [image for image in drawn for _ in range(2)]
            found[f"train_meta.list.num_shot_{shots}.seed_{seed}"] = text(drawn)
    for split, first, count in (("val", TRAIN, VAL), ("test", TRAIN + VAL, TEST)):
        images = [(label, first + n) for label in range(CLASSES) for n in range(count)]
        found[f"{split}_meta.list"] = text(images)
    return found


def few_shot() -> dict[str, bytes]:
    """Return path -> content of the lists of a small set in the place of oxford-pets, and of its manifest."""
    lists = few_shot_lists()
    manifest = [
        "name: fgvc_pets",
        "suite: fgvc",
        "group: fgvc",
        "position: 4",
        f"classes: {CLASSES}",
        "source: few_shot",
        "folders: [few-shot/oxford-pets]",
        "images: [oxford_pets/images]",
        f"splits: {{val: {CLASSES * VAL}, test: {CLASSES * TEST}}}",
        "metric: accuracy",
        "resize: crop",
        f"shots: [{', '.join(map(str, SHOTS))}]",
        f"split_seeds: [{', '.join(map(str, SEEDS))}]",
        "lists:",
    ]
    for name, text in lists.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        manifest += [f"  {name}:", f"    lines: {len(text.splitlines())}", f"    sha256: {digest}"]
    manifest += ["about: {title: A made-up few-shot set, licence: MIT}"]
    files = {f"noah-few-shot/oxford-pets/annotations/{name}": text.encode() for name, text in lists.items()}
    return files | {"fgvc_pets.yaml": "".join(f"{line}\n" for line in manifest).encode()}


def main() -> None:
    for name, content in (checkpoints() | few_shot()).items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
