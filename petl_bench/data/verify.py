"""What is wrong with the files of a task, every fault named; and where its images come from."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petl_bench.data.files import Advance, FileFacts, file_facts, nothing
from petl_bench.data.layouts import LAYOUTS, few_shot_list, folder_of, foreign, located
from petl_bench.data.lists import Listing
from petl_bench.data.resolve import fingerprint, list_hash
from petl_bench.errors import UserError
from petl_bench.types import TRAINVAL, Cache, Manifest, TaskSpec


@dataclass(frozen=True)
class Problem:
    """One fault; `kind` is one word for scripts."""

    task: str
    split: str
    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class TaskReport:
    """What was found for one task.

    Attributes:
        images: number of different files listed.
        formats: number of files of each format, as PIL names them.
        jpeg_quality: least, median and greatest estimated quality; empty without JPEG files.
        fingerprint: as in the rows of runs; of a few-shot set, over those of all its training lists; empty
            where files are missing.
        notes: what is worth knowing and no fault.
    """

    task: str
    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    jpeg_quality: list[int] = field(default_factory=list)
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """A located task with all its lists: the four of VTAB's layout, or every list of a few-shot set."""

    spec: TaskSpec
    manifest: Manifest
    parts: dict[str, Listing]

    def problem(self, split: str, kind: str, path: object, message: str) -> Problem:
        return Problem(self.spec.name, split, kind, str(path), message)


def verify(spec: TaskSpec, manifest: Manifest, cache: Cache, report: Advance = nothing) -> TaskReport:
    """Check one planned task.

    Args:
        manifest: with the user's overrides of split sizes, if any.
        report: told how many files were looked at.
    """
    try:
        spec = located(spec, manifest)
    except UserError as error:
        root = Path(spec.place["root"])
        message = str(error).removeprefix(f"{root}: ")
        return TaskReport(spec.name, [Problem(spec.name, "", "missing_folder", str(root), message)])
    task = _Task(spec, manifest, _parts(spec, manifest))
    names = [name for listing in task.parts.values() for name in listing.names]
    facts = file_facts(_folder(task), names, cache, decode=True, report=report)
    problems = [*_lists(task), *_labels(task), *_files(task, facts), *_strays(task)]
    repeated = [*_repeats(task, facts)]
    notes = []
    if manifest.repeats and repeated:
        count = sum(problem.split == "test" for problem in repeated)
        notes.append(f"{count} test images are training images too: {manifest.repeats}")
        repeated = []
    whole = all(fact.sha256 for fact in facts.values()) and all(task.parts.values())
    if whole:
        problems += _trainval(task, facts)
    quality = sorted(fact.quality for fact in facts.values() if fact.quality)
    return TaskReport(
        spec.name,
        problems + repeated,
        len(facts),
        dict(Counter(fact.format or "unknown" for fact in facts.values()).most_common()),
        [quality[0], quality[len(quality) // 2], quality[-1]] if quality else [],
        _fingerprint(task, facts) if whole else "",
        notes,
    )


def _parts(spec: TaskSpec, manifest: Manifest) -> dict[str, Listing]:
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


def _folder(task: _Task) -> Path:
    return next(iter(task.parts.values())).folder


def _expected(task: _Task, part: str) -> list[int]:
    """Numbers of lines that the list may have; none where nothing is known."""
    sizes, lists = task.manifest.splits, task.manifest.lists
    if part == TRAINVAL:
        return [sizes["train"] + sizes["val"]] if "train" in sizes else []
    if part in lists:
        return [lists[part].lines]
    also = task.manifest.also_test if part == "test" and not task.spec.override else []
    return [sizes[part], *also] if part in sizes else []


def _lists(task: _Task) -> Iterator[Problem]:
    """The lists themselves: their lines, number of lines, hashes, and the folders they name."""
    known = {facts.sha256: name for name, facts in task.manifest.lists.items()}
    for part, listing in task.parts.items():
        for fault in listing.faults:
            yield task.problem(part, fault.kind, fault.path, fault.message)
        if not listing.names and not listing.faults:
            yield task.problem(part, "empty_list", listing.source, f"no image is left for {part}")
        expected, lines = _expected(task, part), len(listing)
        if listing.names and expected and lines not in expected:
            said = " or ".join(map(str, expected))
            yield task.problem(part, "count", listing.source, f"lists {lines} images, it should be {said}")
        yield from _folders(task, part, listing)
        if not task.manifest.shots:
            for name, count in Counter(listing.names).items():
                if count > 1:
                    yield task.problem(part, "repeated_line", listing.source, f"lists {name} {count} times")
        name = listing.source.name
        if name in task.manifest.lists and listing.source.is_file() and not _overridden(task, part):
            found = list_hash(listing.source)
            if found != task.manifest.lists[name].sha256:
                other = (
                    f"it holds {known[found]}: swapped?" if found in known else "edited, or another version?"
                )
                message = f"is not the circulated list (SHA-256 {found[:16]}...); {other}"
                yield task.problem(part, "list_hash", listing.source, message)


def _overridden(task: _Task, part: str) -> bool:
    """Whether the user has given the list another size."""
    splits = ("train", "val") if part == TRAINVAL else (part,)
    return any(f"splits.{split}=" in task.spec.override for split in splits)


def _folders(task: _Task, part: str, listing: Listing) -> Iterator[Problem]:
    """In VTAB's layout a list names files of its own folder only."""
    others = Counter(name.rpartition("/")[0] for name in foreign(task.spec, part, listing))
    for folder, count in others.items():
        swapped = folder in {folder_of(other) for other in task.parts}
        message = f"{count} of {len(listing)} lines name files of {folder or '.'}/, not of {folder_of(part)}/"
        message += ": lists swapped?" if swapped else ""
        yield task.problem(part, "swapped_lists" if swapped else "wrong_folder", listing.source, message)


def _labels(task: _Task) -> Iterator[Problem]:
    """Labels in range, and all classes there where they should be."""
    highest = max((int(listing.labels.max(initial=0)) for listing in task.parts.values()), default=0)
    classes = task.spec.classes or highest + 1
    for part, listing in task.parts.items():
        wrong = np.flatnonzero((listing.labels < 0) | (listing.labels >= classes))
        if len(wrong):
            first = wrong[0]
            message = (
                f"{len(wrong)} labels out of range, the first {listing.labels[first]} of "
                f"{listing.names[first]}; the {classes} classes are 0 to {classes - 1}"
            )
            yield task.problem(part, "label_range", listing.source, message)
        covered, expected = len(np.unique(listing.labels)), classes
        if part == TRAINVAL:
            expected = task.manifest.train_classes or classes
        whole = part in (TRAINVAL, "test") or part in task.manifest.lists
        counted = task.spec.classes > 0 and not _overridden(task, part)
        if listing.names and whole and counted and covered != expected and not len(wrong):
            message = f"has images of {covered} classes, it should be {expected}: wrong class count"
            yield task.problem(part, "class_coverage", listing.source, message)


def _files(task: _Task, facts: Mapping[str, FileFacts]) -> Iterator[Problem]:
    """Every listed file is there and can be decoded."""
    reported: set[str] = set()
    for part, listing in task.parts.items():
        for name in listing.names:
            if facts[name].error and name not in reported:
                reported.add(name)
                missing = facts[name].is_missing
                message = f"is not there, {listing.source.name} lists it" if missing else facts[name].error
                kind = "missing_file" if missing else "undecodable"
                yield task.problem(part, kind, listing.folder / name, message)


def _strays(task: _Task) -> Iterator[Problem]:
    """In VTAB's layout: empty folders, files that no list names, links that lead away."""
    if not LAYOUTS.get(task.spec.source).split_folders:
        return
    listed = {name for listing in task.parts.values() for name in listing.names}
    root = Path(task.spec.place["root"]).resolve()
    for part in task.parts:
        folder = _folder(task) / folder_of(part)
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
    """The same image, byte for byte, in test and in training or val, or in val and in train."""

    def held(parts: Iterable[str]) -> dict[str, str]:
        return {facts[name].sha256: name for part in parts for name in task.parts[part].names}

    training = [part for part in task.parts if part not in ("val", "test", TRAINVAL)]
    elsewhere = {"val": held(training), "test": held([p for p in task.parts if p != "test"])}
    for part, others in elsewhere.items():
        listing = task.parts[part]
        for name in dict.fromkeys(listing.names):
            if facts[name].sha256 and facts[name].sha256 in others:
                message = f"is the same image as {others[facts[name].sha256]}, of another split"
                yield task.problem(part, "duplicate", listing.folder / name, message)


def _trainval(task: _Task, facts: Mapping[str, FileFacts]) -> Iterator[Problem]:
    """VTAB's third list holds the images and labels of the other two."""
    if TRAINVAL not in task.parts or task.manifest.source == "tree":
        return
    bags = {
        part: Counter(
            (facts[name].sha256, int(label))
            for name, label in zip(task.parts[part].names, task.parts[part].labels, strict=True)
        )
        for part in ("train", "val", TRAINVAL)
    }
    differing = sum(((bags["train"] + bags["val"]) - bags[TRAINVAL]).values())
    if differing:
        message = f"lacks {differing} of the images (or has other labels for them) that train and val list"
        yield task.problem(TRAINVAL, "trainval_differs", task.parts[TRAINVAL].source, message)


def _fingerprint(task: _Task, facts: Mapping[str, FileFacts]) -> str:
    """That of the rows; over a few-shot set's training lists, the SHA-256 of theirs in order."""

    def one(listings: Mapping[str, Listing]) -> str:
        return fingerprint(
            listings, {p: [facts[name] for name in held.names] for p, held in listings.items()}
        )

    if not task.manifest.shots:
        return one(task.parts)
    all_of_them = hashlib.sha256()
    for part, listing in task.parts.items():
        if part not in ("val", "test"):
            parts = {
                "train": listing,
                "val": task.parts["val"],
                TRAINVAL: listing,
                "test": task.parts["test"],
            }
            all_of_them.update(one(parts).encode())
    return all_of_them.hexdigest()
