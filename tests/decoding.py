"""Images for tests of the cache of decoded images, and the values expected by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from petl_bench.data.decoded import decoded
from petl_bench.data.file_facts import FileFacts, file_facts
from petl_bench.data.lists import Listing
from petl_bench.types import Cache
from tests.trees import picture, save


@dataclass(frozen=True)
class Images:
    """A listing and the facts of its files, as a run has them before it decodes images."""

    listing: Listing
    facts: list[FileFacts]

    @property
    def paths(self) -> list[Path]:
        return [self.listing.folder / name for name in self.listing.names]


def images_of(
    folder: Path, names: Sequence[str], cache: Cache, labels: Sequence[int] | None = None
) -> Images:
    known = file_facts(folder, names, cache)
    assert not [fact.error for fact in known.values() if fact.error]
    numbers = np.array(labels if labels is not None else [0] * len(names), np.int64)
    return Images(Listing(folder, folder / "list.txt", list(names), numbers), [known[n] for n in names])


def pictures(folder: Path, count: int, side: int, cache: Cache, first: int = 0) -> Images:
    """Write PNG files of one size, all different."""
    names = [f"{number:04d}.png" for number in range(first, first + count)]
    for number, name in enumerate(names, first):
        save(picture(number % 7, number, side), folder / name)
    return images_of(folder, names, cache)


def fill(images: Images, size: int, cache: Cache, resize: str = "stretch") -> np.ndarray:
    return decoded(images.listing, images.facts, resize, size, cache)


def stretched(path: Path, size: int) -> np.ndarray:
    """Return the file as RGB, resized by Pillow's bicubic filter, as an array (3, size, size)."""
    with Image.open(path) as image:
        square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1)


def in_cache(cache: Cache) -> tuple[list[str], list[str]]:
    """Return the names of the cache files, and those of temporary files left beside them."""
    names = sorted(path.name for path in (Path(cache.directory) / "decoded").iterdir())
    return [n for n in names if n.endswith(".npy") and n[0] != "."], [n for n in names if n[0] == "."]
