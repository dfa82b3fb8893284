"""Resolution of planned tasks: find and hash their files, check them, and load the splits a run may use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from petl_bench.data.base import GENERATORS, Split, concatenate, digest, generate
from petl_bench.data.checks import (
    Problem,
    class_problems,
    classes_of,
    file_problems,
    label_problems,
    list_problems,
    repeated_lines,
    trainval_problems,
    value_problems,
)
from petl_bench.data.decoded import decoded, native_sizes
from petl_bench.data.describe import contents, contradictions, narrow_range
from petl_bench.data.file_facts import Advance, FileFacts, Notify, file_facts, ignore
from petl_bench.data.layouts import LAYOUTS, located
from petl_bench.data.lists import Listing
from petl_bench.data.manifest_files import manifests
from petl_bench.data.tree import LITTERED
from petl_bench.errors import UserError
from petl_bench.types import SPLITS, TRAINVAL, Cache, Manifest, TaskSpec

PARTS = ("train", "val", TRAINVAL, "test")
"""The listings of a task, in the order in which fingerprints take them."""


def manifest_of(task: TaskSpec) -> Manifest:
    """Return the manifest of a planned task; for the user's own data, the manifest of their layout."""
    known = manifests()
    return known[task.source if task.suite == "own" else task.name]


def expected_files(task: TaskSpec) -> int:
    """Estimate the number of files that `resolve` will read; 0 where it is unknown."""
    if task.source in GENERATORS:
        return 0
    return sum(task.splits.values()) + task.training_images


def resolve(
    task: TaskSpec,
    cache: Cache,
    advance: Advance = ignore,
    warn: Notify = ignore,
    tell: Notify = ignore,
    decode: bool = False,
) -> TaskSpec:
    """Return a task with the sizes, classes and fingerprint of the data found.

    Args:
        task: a planned task. Generated tasks are returned unchanged.
        cache: where facts of files are kept between calls.
        advance: called with the number of files that were hashed since its last call.
        warn: called with a sentence if test contains images that are used for training or selection.
        tell: called with the classes and the numbers of images of own data, in one line.
        decode: also decode the pixels of images for which this was not done before, so that a damaged one is
            found before anything is trained; otherwise only headers are read.

    Raises:
        UserError: files are missing or no images, or counts, labels or lists are not those of the manifest.
    """
    if task.source in GENERATORS:
        return task
    manifest = manifest_of(task)
    task = located(task, manifest)
    listings = LAYOUTS.get(task.source).listings(task)
    advice = f"`petl-bench data verify {task.suite} --root {task.place['root']}` lists all problems"
    if task.suite == "own":
        advice = f"`petl-bench data verify {task.source} --root {task.place['root']}` shows what is there"
    _refuse(class_problems(task, listings), advice)
    _refuse(list_problems(task, manifest, listings), advice)
    _refuse(repeated_lines(task, manifest, listings), advice)
    _refuse(label_problems(task, listings), advice)
    facts = _present(task, listings, cache, advice, advance, decode)
    by_name = _by_name(listings, facts)
    _refuse(value_problems(task, listings, by_name), advice)
    _refuse(trainval_problems(task, manifest, listings, by_name), advice)
    used = {fact.sha256 for part in PARTS if part != "test" for fact in facts[part]}
    shared = sum(fact.sha256 in used for fact in facts["test"])
    if shared and not manifest.repeats:
        warn(
            f"{shared} test images of {task.name} are training or val images too; `petl-bench data verify` "
            "names them"
        )
    left_out = {reason: paths for reason, paths in listings["train"].left_out.items() if reason != LITTERED}
    if left_out:
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in left_out.items())
        warn(f"{task.place['root']}: left out are {counts}; {advice}")
    name = Path(task.place["root"]).resolve().name if task.suite == "own" else task.name
    if task.suite == "own":
        unchecked = sum(not fact.decoded for fact in by_name.values())
        later = f"; pixels of {unchecked:,} not checked yet, the sweep does before it trains"
        tell(contents(name, listings) + (later if unchecked else ""))
        for remark in (*contradictions(listings, by_name), *narrow_range(by_name)):
            warn(f"{name}: {remark}")
    return replace(
        task,
        name=name,
        splits={split: len(listings[split]) for split in SPLITS},
        classes=classes_of(task, listings),
        fingerprint=fingerprint(listings, facts, shown=task.suite == "own"),
    )


def fingerprint(listings: Mapping[str, Listing], facts: Mapping[str, list[FileFacts]], shown: bool) -> str:
    """Return the SHA-256 over labels and file contents of all listings, independent of names and folders.

    Args:
        shown: images are read by `petl_bench.data.images.as_shown`. Its rule joins the hash of each image of
            which it gives other pixels than `convert("RGB")`, by which all images were once read.
    """
    whole = hashlib.sha256()
    for part in PARTS:
        sha = hashlib.sha256()
        for label, fact in zip(listings[part].labels, facts[part], strict=True):
            rule = f" shown {fact.rule}" if shown and fact.shown_otherwise else ""
            sha.update(f"{label} {fact.sha256}{rule}\n".encode())
        whole.update(f"{part} {len(listings[part])} {sha.hexdigest()}\n".encode())
    return whole.hexdigest()


class Load(Protocol):
    """Signature of `load`, for code to which other images can be given."""

    def __call__(
        self, task: TaskSpec, split: str, size: int, cache: Cache, native: bool = False
    ) -> Split: ...


def load(task: TaskSpec, split: str, size: int, cache: Cache, native: bool = False) -> Split:
    """Return one split of a resolved task; images of other splits are not decoded.

    Args:
        split: train, val, trainval or test.
        size: side of the backbone's input in pixels.
        cache: where decoded images are kept.
        native: keep files in their native sizes, for random crops; generated tasks have one size anyway.

    Returns:
        Images (N, channels, height, width) or ragged, uint8, with labels (N,).

    Raises:
        UserError: the data do not have the task's fingerprint, or an image cannot be decoded.
    """
    if task.source in GENERATORS:
        return _generated(task, split)
    listings, facts = _found(task, cache)
    listing, known = listings[split], facts[split]
    shown = task.suite == "own"
    if native:
        return Split(native_sizes(listing, known, cache, shown), listing.labels)
    return Split(decoded(listing, known, task.resize, size, cache, shown), listing.labels)


def labels(task: TaskSpec, split: str, cache: Cache) -> NDArray[np.int64]:
    """Return the labels (N,) of one split of a resolved task; no image of a file is decoded. See `load`."""
    if task.source in GENERATORS:
        return _generated(task, split).labels
    return np.asarray(_found(task, cache)[0][split].labels, np.int64)


def class_names(task: TaskSpec, cache: Cache) -> tuple[str, ...]:
    """Return the names of the classes of a resolved task by label; empty where they are not known.

    Classes of the user's own data are named after their folders; list files name none.
    """
    if task.suite == "own":
        return _found(task, cache)[0]["test"].classes
    known = manifests().get(task.name)
    return tuple(known.class_names) if known else ()


@cache
def _found(task: TaskSpec, cache: Cache) -> tuple[dict[str, Listing], dict[str, list[FileFacts]]]:
    """Return the listings of a resolved task and the facts of their files."""
    listings = LAYOUTS.get(task.source).listings(task)
    advice = "if the data have moved, give their new folder (eval --root DIR, or data.root=DIR)"
    for part, listing in listings.items():
        _refuse((Problem(task.name, part, f.kind, f.path, f.message) for f in listing.faults), advice)
    facts = _present(task, listings, cache, advice)
    found = fingerprint(listings, facts, shown=task.suite == "own")
    if found != task.fingerprint:
        raise UserError(
            f"task {task.name}: the files in {task.place['lists']} have fingerprint {found[:16]}..., the run "
            f"was planned for {task.fingerprint[:16]}...; they have changed, or are another copy"
            + (", or an earlier version read or drew them otherwise" if task.suite == "own" else "")
        )
    return listings, facts


def _generated(task: TaskSpec, split: str) -> Split:
    splits = _verified(task)
    if split == TRAINVAL:
        return concatenate(splits["train"], splits["val"])
    return splits[split]


@cache
def _verified(task: TaskSpec) -> Mapping[str, Split]:
    """Generate all splits of a task and check that they have its fingerprint."""
    splits = generate(task.source, task.splits)
    found = digest(splits)
    if found != task.fingerprint:
        raise UserError(
            f"task {task.name}: the data have fingerprint {found[:16]}..., its manifest says "
            f"{task.fingerprint[:16]}...; the library that provides or draws the images has changed them, so "
            "results would not be comparable"
        )
    labels = np.concatenate([split.labels for split in splits.values()])
    if labels.min() < 0 or labels.max() >= task.classes:
        raise UserError(
            f"task {task.name}: labels reach {labels.max()}, its manifest says {task.classes} classes"
        )
    return splits


def _refuse(problems: Iterable[Problem], advice: str) -> None:
    """Raise a UserError for the first of some problems, if there is one."""
    for problem in problems:
        raise UserError(f"task {problem.task}: {problem.path}: {problem.message}; {advice}")


def _present(
    task: TaskSpec,
    listings: Mapping[str, Listing],
    cache: Cache,
    advice: str,
    advance: Advance = ignore,
    decode: bool = False,
) -> dict[str, list[FileFacts]]:
    """Return the facts of every listed file by part; all listings of a task are relative to one folder."""
    names = [name for listing in listings.values() for name in listing.names]
    found = file_facts(listings["test"].folder, names, cache, decode, advance)
    _refuse(file_problems(task, listings, found), advice)
    return {part: [found[name] for name in listing.names] for part, listing in listings.items()}


def _by_name(listings: Mapping[str, Listing], facts: Mapping[str, list[FileFacts]]) -> dict[str, FileFacts]:
    """Return the facts of all listed files by name."""
    return {
        name: fact
        for part, listing in listings.items()
        for name, fact in zip(listing.names, facts[part], strict=True)
    }
