"""Description of the data found: classes, sizes and modes of images, and files that are not used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from petl_bench.data.file_facts import FileFacts
from petl_bench.data.images import DEEP, value_flaw
from petl_bench.data.lists import Listing
from petl_bench.data.tree import IMAGES, LITTERED, LeftOut, is_litter
from petl_bench.types import SPLITS

MANY_CLASSES = 100_000
"""Highest label up to which classes are counted: labels far beyond the number of images are a mistake."""

NARROW = 1 / 8
"""Part of their range that images of more than 8 bits should exceed together."""
NAMED = 10
"""Maximum number of classes that one line names."""


def class_counts(listings: Mapping[str, Listing]) -> list[dict[str, str | int]]:
    """Return the images of each class in train, val and test."""
    highest = max(int(listings[split].labels.max(initial=-1)) for split in SPLITS)
    lowest = min(int(listings[split].labels.min(initial=0)) for split in SPLITS)
    if lowest < 0 or highest >= MANY_CLASSES:
        return []
    names = listings["train"].classes or tuple(map(str, range(highest + 1)))
    counts = {split: np.bincount(listings[split].labels, minlength=len(names)) for split in SPLITS}
    return [
        {"class": name, **{split: int(counts[split][label]) for split in SPLITS}}
        for label, name in enumerate(names)
    ]


def contents(name: str, listings: Mapping[str, Listing]) -> str:
    """Return the classes of own data and the number of images of each split in words."""
    known = listings["train"].classes
    highest = max(int(listings[split].labels.max(initial=-1)) for split in SPLITS)
    named = f": {', '.join(known[:NAMED])}{', ...' if len(known) > NAMED else ''}" if known else ""
    images = ", ".join(f"{len(listings[split]):,} {split}" for split in SPLITS)
    return f"{name}: {len(known) or highest + 1:,} classes{named}; images: {images}"


def sizes_of(facts: Mapping[str, FileFacts], shown: bool) -> list[str]:
    """Return the smallest, the median and the largest image by area, as `WIDTHxHEIGHT`.

    Args:
        shown: whether images are turned by their EXIF orientation.
    """
    shapes = sorted((fact.shape(shown) for fact in facts.values() if fact.width), key=np.prod)
    chosen = [shapes[0], shapes[len(shapes) // 2], shapes[-1]] if shapes else []
    return [f"{width}x{height}" for height, width in chosen]


def contradictions(listings: Mapping[str, Listing], facts: Mapping[str, FileFacts]) -> list[str]:
    """Return a note about images, the same byte for byte, that have several labels, if there are any."""
    labels: dict[str, set[int]] = {}
    names: dict[str, str] = {}
    for listing in listings.values():
        for name, label in zip(listing.names, listing.labels, strict=True):
            labels.setdefault(facts[name].sha256, set()).add(int(label))
            names.setdefault(facts[name].sha256, name)
    several = [names[sha256] for sha256, found in labels.items() if len(found) > 1 and sha256]
    return (
        [f"the same image with several labels: {len(several)}; the first is {several[0]}"] if several else []
    )


def reading_notes(facts: Mapping[str, FileFacts], shown: bool) -> list[str]:
    """Return one note for each property of some files that decides how they are read.

    Args:
        shown: whether they are read by `petl_bench.data.images.as_shown`, or by `convert("RGB")`.
    """
    known = facts.values()
    counts = (
        (
            sum(fact.transparent for fact in known),
            "with transparency",
            "blended with white" if shown else "transparency is dropped, as by the published loaders",
        ),
        (
            sum(fact.orientation != 1 for fact in known),
            "with an EXIF orientation",
            "turned accordingly" if shown else "not turned, as by the published loaders",
        ),
        (
            sum(fact.mode in DEEP for fact in known),
            "of more than 8 bits",
            "reduced to 8 bits" if shown else "clipped at 255, as by the published loaders",
        ),
        (sum(fact.frames > 1 for fact in known), "of several frames or pages", "the first is read"),
    )
    notes = [f"images {what}: {count}; {how}" for count, what, how in counts if count]
    return notes + (narrow_range(facts) if shown else [])


def narrow_range(facts: Mapping[str, FileFacts]) -> list[str]:
    """Return a note about images of more than 8 bits that use only a small part of their range."""
    deep = [
        fact
        for fact in facts.values()
        if fact.white and not value_flaw(fact.mode, fact.low, fact.high, fact.white)
    ]
    low = min((fact.low / fact.white for fact in deep), default=0.0)
    high = max((fact.high / fact.white for fact in deep), default=1.0)
    if high - low >= NARROW:
        return []
    return [
        f"the values of all {len(deep)} images of more than 8 bits lie between {low:.1%} and {high:.1%} of "
        f"their range, so that about {max(1, round((high - low) * 256))} of 256 levels are left; stretch the "
        "values to the whole range, or save the images with 8 bits"
    ]


def left_out_of(listings: Mapping[str, Listing]) -> list[dict[str, str | int]]:
    """Return the number of files that are not used, and the path of the first, by reason.

    For lists, these are the image files in the folder that no list names.
    """
    train = listings["train"]
    left_out = train.left_out if train.classes or train.source == train.folder else _unlisted(listings)
    return [{"reason": reason, "files": len(paths), "first": paths[0]} for reason, paths in left_out.items()]


def _unlisted(listings: Mapping[str, Listing]) -> LeftOut:
    """Return the files below the folder of some lists that no list names: images, and litter."""
    folder = next(iter(listings.values())).folder
    named = {os.path.normpath(name) for listing in listings.values() for name in listing.names}
    found: LeftOut = {}
    for directory, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not is_litter(name))
        for name in sorted(files):
            path = Path(directory, name).relative_to(folder).as_posix()
            if path not in named and os.path.splitext(name)[1].lower() in IMAGES:
                reason = LITTERED if is_litter(name) else "images that no list names"
                found.setdefault(reason, []).append(path)
    return found


def modes_and_sizes(modes: Mapping[str, int], sizes: list[str]) -> str:
    """Return modes and sizes in words."""
    counted = ", ".join(f"{mode} {count:,}" for mode, count in Counter(modes).most_common())
    return f"modes: {counted or '-'}; sizes: {' .. '.join(dict.fromkeys(sizes)) or '-'}"
