"""Verification of the files of a task: all problems by name, and facts about its images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petl_bench.data.checks import (
    Problem,
    class_problems,
    classes_of,
    count_problem,
    file_problems,
    is_overridden,
    label_problems,
    list_problems,
    repeated_lines,
    trainval_problems,
    value_problems,
)
from petl_bench.data.describe import class_counts, contradictions, left_out_of, reading_notes, sizes_of
from petl_bench.data.file_facts import Advance, FileFacts, file_facts, ignore
from petl_bench.data.layouts import LAYOUTS, few_shot_list, folder_of, located
from petl_bench.data.lists import Listing
from petl_bench.data.resolve import fingerprint
from petl_bench.errors import UserError
from petl_bench.types import TRAINVAL, Cache, Manifest, TaskSpec


@dataclass(frozen=True)
class TaskReport:
    """Result of the verification of one task.

    Attributes:
        images: number of different files listed.
        formats: number of files of each format, as PIL names it.
        jpeg_quality: lowest, median and highest estimated quality; empty without JPEG files.
        fingerprint: the fingerprint that rows of runs state; for a few-shot set, a hash over the fingerprints
            of all its training lists; empty if files are missing.
        notes: facts worth knowing that are no problems.
        modes: number of files of each mode of pixels, as Pillow names it.
        sizes: the smallest, the median and the largest image by area, as `WIDTHxHEIGHT`.
        classes: own data: images of each class in train, val and test, as the sweep would use them.
        left_out: own data: files that are not used, by reason: their number, and the path of the first.
    """

    task: str
    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    jpeg_quality: list[int] = field(default_factory=list)
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=dict)
    sizes: list[str] = field(default_factory=list)
    classes: list[dict[str, str | int]] = field(default_factory=list)
    left_out: list[dict[str, str | int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """A located task with all its lists: the four of VTAB's layout, or every list of a few-shot set."""

    spec: TaskSpec
    manifest: Manifest
    parts: dict[str, Listing]

    @property
    def folder(self) -> Path:
        """Folder that the names of all lists are relative to."""
        return next(iter(self.parts.values())).folder

    def problem(self, split: str, kind: str, path: object, message: str) -> Problem:
        return Problem(self.spec.name, split, kind, str(path), message)


def verify(
    spec: TaskSpec, manifest: Manifest, cache: Cache, advance: Advance = ignore, decode: bool = True
) -> TaskReport:
    """Check all files of one planned task and report every problem.

    Args:
        manifest: the manifest of the task, with the user's overrides of split sizes.
        cache: where facts of files are kept between calls.
        advance: called with the number of files that were read since its last call.
        decode: also decode the pixels of all images.
    """
    try:
        spec = located(spec, manifest)
        task = _Task(spec, manifest, _parts(spec, manifest))
    except UserError as error:
        root = Path(spec.place["root"])
        kind = "layout" if "lists" in spec.place else "missing_folder"
        message = str(error).removeprefix(f"{root}: ")
        return TaskReport(spec.name, [Problem(spec.name, "", kind, str(root), message)])
    names = [name for listing in task.parts.values() for name in listing.names]
    facts = file_facts(task.folder, names, cache, decode=decode, advance=advance)
    problems = [
        *class_problems(spec, task.parts),
        *list_problems(spec, manifest, task.parts),
        *repeated_lines(spec, manifest, task.parts),
        *_trainval_size(task),
        *label_problems(spec, task.parts),
        *_coverage(task),
        *file_problems(spec, task.parts, facts),
        *value_problems(spec, task.parts, facts),
        *_strays(task),
    ]
    repeated = [*_repeats(task, facts)]
    notes = contradictions(task.parts, facts) if spec.suite == "own" else []
    if manifest.repeats and repeated:
        count = sum(problem.split == "test" for problem in repeated)
        notes.append(f"{count} test images are training images too: {manifest.repeats}")
        repeated = []
    complete = all(fact.sha256 for fact in facts.values()) and all(task.parts.values())
    if complete:
        problems += trainval_problems(spec, manifest, task.parts, facts)
    quality = sorted(fact.quality for fact in facts.values() if fact.quality)
    return TaskReport(
        spec.name,
        problems + repeated,
        len(facts),
        dict(Counter(fact.format or "unknown" for fact in facts.values()).most_common()),
        [quality[0], quality[len(quality) // 2], quality[-1]] if quality else [],
        _fingerprint(task, facts) if complete else "",
        notes + reading_notes(facts, shown=spec.suite == "own"),
        dict(Counter(fact.mode for fact in facts.values() if fact.mode).most_common()),
        sizes_of(facts, shown=spec.suite == "own"),
        class_counts(task.parts) if spec.suite == "own" else [],
        left_out_of(task.parts) if spec.suite == "own" else [],
    )


def _parts(spec: TaskSpec, manifest: Manifest) -> dict[str, Listing]:
    """Return all lists of a task; the training lists of a few-shot set by their file names."""
    layout = LAYOUTS.get(spec.source)
    parts: dict[str, Listing] = {}
    for shots in manifest.shots or [spec.shots]:
        for seed in manifest.split_seeds or [spec.split_seed]:
            listings = layout.listings(replace(spec, shots=shots, split_seed=seed))
            if manifest.shots:
                listings[few_shot_list(shots, seed)] = listings.pop("train")
                del listings[TRAINVAL]
            parts |= listings
    return parts


def _trainval_size(task: _Task) -> Iterator[Problem]:
    """Check that VTAB's third list is as long as those of train and val together."""
    sizes = task.spec.splits
    if TRAINVAL in task.parts and "train" in sizes:
        total = sizes["train"] + sizes["val"]
        yield from count_problem(task.spec, TRAINVAL, task.parts[TRAINVAL], [total])


def _coverage(task: _Task) -> Iterator[Problem]:
    """Check that complete lists with labels in range have images of all classes."""
    classes = classes_of(task.spec, task.parts)
    for part, listing in task.parts.items():
        complete = part in (TRAINVAL, "test") or part in task.manifest.lists
        in_range = not np.any((listing.labels < 0) | (listing.labels >= classes))
        if not (task.spec.classes and listing.names and complete and in_range):
            continue
        expected = task.manifest.train_classes if part == TRAINVAL else 0
        covered = len(np.unique(listing.labels))
        if covered != (expected or classes) and not is_overridden(task.spec, part):
            message = (
                f"has images of {covered} classes, it should be {expected or classes}: wrong class count"
            )
            yield task.problem(part, "class_coverage", listing.source, message)


def _strays(task: _Task) -> Iterator[Problem]:
    """Check the folders of VTAB's layout for files that no list names and for links that lead out."""
    if not LAYOUTS.get(task.spec.source).split_folders:
        return
    listed = {name for listing in task.parts.values() for name in listing.names}
    root = Path(task.spec.place["root"]).resolve()
    for part in task.parts:
        folder = task.folder / folder_of(part)
        if not folder.is_dir():
            yield task.problem(part, "missing_folder", folder, "the folder is not there")
            continue
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        if not entries:
            yield task.problem(part, "empty_folder", folder, "the folder is empty")
        for entry in sorted(entries, key=lambda entry: entry.name):
            if f"{folder_of(part)}/{entry.name}" not in listed:
                yield task.problem(part, "extra_file", entry.path, "no list names this file")
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                message = "links out of the data folder; put the file itself there"
                yield task.problem(part, "escaping_path", entry.path, message)


def _repeats(task: _Task, facts: Mapping[str, FileFacts]) -> Iterator[Problem]:
    """Find test images that are also in training or val, and val images that are also in train.

    Images are the same if their files are the same byte for byte.
    """

    def contents(parts: Iterable[str]) -> dict[str, str]:
        return {facts[name].sha256: name for part in parts for name in task.parts[part].names}

    training = [part for part in task.parts if part not in ("val", "test", TRAINVAL)]
    elsewhere = {"val": contents(training), "test": contents([p for p in task.parts if p != "test"])}
    for part, others in elsewhere.items():
        listing = task.parts[part]
        for name in dict.fromkeys(listing.names):
            if facts[name].sha256 and facts[name].sha256 in others:
                message = f"is the same image as {others[facts[name].sha256]}, of another split"
                yield task.problem(part, "duplicate", listing.folder / name, message)


def _fingerprint(task: _Task, facts: Mapping[str, FileFacts]) -> str:
    """Return the fingerprint of a complete task; see TaskReport."""

    def one(listings: Mapping[str, Listing]) -> str:
        known = {part: [facts[name] for name in held.names] for part, held in listings.items()}
        return fingerprint(listings, known, shown=task.spec.suite == "own")

    if not task.manifest.shots:
        return one(task.parts)
    combined = hashlib.sha256()
    held_out = {part: task.parts[part] for part in ("val", "test")}
    for part, listing in task.parts.items():
        if part not in held_out:
            combined.update(one({"train": listing, TRAINVAL: listing, **held_out}).encode())
    return combined.hexdigest()
