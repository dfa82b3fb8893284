"""From a planned task to verified splits: find the files, hash them, load what a run may see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from petl_bench.data.base import GENERATORS, Split, concatenate, digest, generate
from petl_bench.data.decoded import decoded, native_sizes
from petl_bench.data.files import Advance, FileFacts, file_facts, nothing
from petl_bench.data.layouts import LAYOUTS, folder_of, foreign, located
from petl_bench.data.lists import Listing
from petl_bench.data.manifest_files import manifests
from petl_bench.errors import UserError
from petl_bench.types import SPLITS, TRAINVAL, Cache, Manifest, TaskSpec

PARTS = ("train", "val", TRAINVAL, "test")
"""The listings of a task, in the order in which fingerprints take them."""


def manifest_of(task: TaskSpec) -> Manifest:
    """The manifest a task was planned from; of the user's own data, that of their layout."""
    known = manifests()
    return known[task.source if task.suite == "own" else task.name]


def expected_files(task: TaskSpec) -> int:
    """About how many files `resolve` will look at, for an estimate of time; 0 where nothing is known."""
    if task.source in GENERATORS:
        return 0
    training = task.splits.get("train", 0) + task.splits.get("val", 0)
    return sum(task.splits.values()) + (task.shots * task.classes if task.shots else training)


def resolve(
    task: TaskSpec, cache: Cache, report: Advance = nothing, caution: Callable[[str], None] = nothing
) -> TaskSpec:
    """The task with the sizes, classes and fingerprint of the data found. Pixels are not decoded.

    Args:
        report: told how many files were hashed.
        caution: told, in a sentence, when test holds images that training or selection sees.

    Raises:
        UserError: files are missing, or counts, labels or lists are not those of the manifest.
    """
    if task.source in GENERATORS:
        return task
    manifest = manifest_of(task)
    task = located(task, manifest)
    listings = LAYOUTS.get(task.source).listings(task)
    task = _counted(task, listings)
    _check_known_lists(task, manifest, listings)
    facts = _present(listings, cache, report)
    seen = {fact.sha256 for part in PARTS if part != "test" for fact in facts[part]}
    shared = sum(fact.sha256 in seen for fact in facts["test"])
    if shared and not manifest.repeats:
        caution(
            f"{shared} test images of {task.name} are training or val images too; `petl-bench data verify` "
            "names them"
        )
    return replace(task, fingerprint=fingerprint(listings, facts))


def fingerprint(listings: Mapping[str, Listing], facts: Mapping[str, list[FileFacts]]) -> str:
    """SHA-256 over the labels and file contents of all listings, independent of names and folders."""
    whole = hashlib.sha256()
    for part in PARTS:
        sha = hashlib.sha256()
        for label, fact in zip(listings[part].labels, facts[part], strict=True):
            sha.update(f"{label} {fact.sha256}\n".encode())
        whole.update(f"{part} {len(listings[part])} {sha.hexdigest()}\n".encode())
    return whole.hexdigest()


def load(task: TaskSpec, split: str, size: int, cache: Cache, native: bool = False) -> Split:
    """One split of a settled task: train, val, trainval or test. No other split's images are decoded.

    Args:
        size: side of the backbone's input.
        native: keep files in their native sizes, for random crops.

    Raises:
        UserError: the data are not those that the task's fingerprint stands for.
    """
    if task.source in GENERATORS:
        return _generated(task, split)
    listings, facts = _found(json.dumps(vars(task), sort_keys=True), cache)
    listing, known = listings[split], facts[split]
    if native:
        return Split(native_sizes(listing, known, cache), listing.labels)
    return Split(decoded(listing, known, task.resize, size, cache), listing.labels)


@cache
def _found(task_json: str, cache: Cache) -> tuple[dict[str, Listing], dict[str, list[FileFacts]]]:
    task = TaskSpec(**json.loads(task_json))
    listings = LAYOUTS.get(task.source).listings(task)
    for listing in listings.values():
        for fault in listing.faults:
            raise UserError(
                f"task {task.name}: {fault.path}: {fault.message}; where the data have moved, name their new "
                "folder (eval --root DIR, or data.root=DIR)"
            )
    facts = _present(listings, cache, nothing)
    found = fingerprint(listings, facts)
    if found != task.fingerprint:
        raise UserError(
            f"task {task.name}: the files in {task.place['lists']} have fingerprint {found[:16]}..., the run "
            f"was planned for {task.fingerprint[:16]}...; they have changed, or are another copy"
        )
    return listings, facts


def _generated(task: TaskSpec, split: str) -> Split:
    sizes = json.dumps(task.splits)
    splits = _verified(task.name, task.source, sizes, task.classes, task.fingerprint)
    if split == TRAINVAL:
        return concatenate(splits["train"], splits["val"])
    return splits[split]


@cache
def _verified(name: str, source: str, sizes: str, classes: int, fingerprint: str) -> Mapping[str, Split]:
    splits = generate(source, json.loads(sizes))
    found = digest(splits)
    if found != fingerprint:
        raise UserError(
            f"task {name}: the data have fingerprint {found[:16]}..., "
            f"its manifest says {fingerprint[:16]}...; "
            "the library that ships or draws the images has changed them, so results would not compare"
        )
    labels = np.concatenate([split.labels for split in splits.values()])
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"task {name}: labels reach {labels.max()}, its manifest says {classes} classes")
    return splits


def _counted(task: TaskSpec, listings: Mapping[str, Listing]) -> TaskSpec:
    """The task with sizes and classes as found, which must be those of the manifest where it says any."""
    hint = f"`petl-bench data verify {task.suite} --root {task.place['root']}` lists all that is wrong"
    if task.suite == "own":
        hint = "see `petl-bench data info folder` for the layout"
    for part, listing in listings.items():
        if listing.faults:
            fault = listing.faults[0]
            raise UserError(f"task {task.name}: {fault.path}: {fault.message}; {hint}")
        for name in foreign(task, part, listing):
            raise UserError(
                f"task {task.name}: {listing.source} lists {name}, which is not in {folder_of(part)}/; {hint}"
            )
        if not len(listing):
            raise UserError(
                f"task {task.name}: no image is left for {part}; data.images={task.drawn} of them are drawn "
                f"for training from {listing.source}"
            )
    sizes = {split: len(listings[split]) for split in SPLITS}
    accepted = {split: {count} for split, count in task.splits.items()}
    if "test" in accepted and not task.override:
        accepted["test"] |= set(manifest_of(task).also_test)
    for split, counts in accepted.items():
        if sizes[split] not in counts:
            said = " or ".join(map(str, sorted(counts)))
            where = listings[split].source
            raise UserError(f"task {task.name}: {where} has {sizes[split]} images, not {said}; {hint}")
    highest = max(int(listing.labels.max()) for listing in listings.values())
    lowest = min(int(listing.labels.min()) for listing in listings.values())
    classes = task.classes or highest + 1
    if lowest < 0 or highest >= classes:
        raise UserError(
            f"task {task.name}: labels go from {lowest} to {highest}, not from 0 to {classes - 1}; {hint}"
        )
    name = Path(task.place["root"]).resolve().name if task.suite == "own" else task.name
    return replace(task, name=name, splits=sizes, classes=classes)


def _check_known_lists(task: TaskSpec, manifest: Manifest, listings: Mapping[str, Listing]) -> None:
    """A few-shot number claims the circulated lists: they must be these."""
    for part, listing in listings.items():
        known = manifest.lists.get(listing.source.name)
        if known is None or f"splits.{part}=" in task.override:
            continue
        if list_hash(listing.source) != known.sha256:
            raise UserError(
                f"task {task.name}: {listing.source} is not the circulated list (its SHA-256 differs); "
                f"get it from {manifest.about.get('origin', 'its authors')}"
            )


def list_hash(path: Path) -> str:
    """SHA-256 of a list file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _present(listings: Mapping[str, Listing], cache: Cache, report: Advance) -> dict[str, list[FileFacts]]:
    """Facts of every listed file; all listings of a task name files of one folder."""
    names = [name for listing in listings.values() for name in listing.names]
    found = file_facts(listings["test"].folder, names, cache, report=report)
    for listing in listings.values():
        for name in listing.names:
            if found[name].error:
                what = "is not there" if found[name].is_missing else found[name].error
                raise UserError(f"{listing.folder / name}: {what}; {listing.source} lists it")
    return {part: [found[name] for name in listing.names] for part, listing in listings.items()}
