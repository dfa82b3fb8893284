"""Checks of the lists, labels and files of a task; each yields the problems that it finds.

`petl_bench.data.resolve` refuses a task at its first problem, `petl_bench.data.verify` reports all of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from petl_bench.data.file_facts import FileFacts
from petl_bench.data.images import value_flaw
from petl_bench.data.layouts import folder_of, foreign
from petl_bench.data.lists import Fault, Listing
from petl_bench.errors import counted
from petl_bench.types import SPLITS, TRAINVAL, Manifest, TaskSpec


@dataclass(frozen=True)
class Problem:
    """One problem of a task's data.

    Attributes:
        split: split or list concerned; empty for the whole task.
        kind: one word for scripts.
        path: file or folder concerned.
        message: what is wrong with it.
    """

    task: str
    split: str
    kind: str
    path: str
    message: str


def list_problems(task: TaskSpec, manifest: Manifest, listings: Mapping[str, Listing]) -> Iterator[Problem]:
    """Check that lists can be read, are not empty, and have the lines and the content they should have.

    Args:
        task: a located task; its split sizes are the expected ones.
        manifest: the manifest of the task.
        listings: lists by split, or by name for the training lists of a few-shot set.
    """
    reported: set[Fault] = set()
    for part, listing in listings.items():
        for fault in listing.faults:
            if fault not in reported:  # parts that are drawn from one tree have the same faults
                yield Problem(task.name, part, fault.kind, fault.path, fault.message)
            reported.add(fault)
        if not listing.names and not listing.faults:
            there = len({name for other in listings.values() for name in other.names})
            message = (
                f"no image is left for {part}; data.images={task.drawn} of {counted(there, 'image')} are "
                "drawn for training: choose fewer than there are"
            )
            yield Problem(task.name, part, "empty_list", str(listing.source), message)
        yield from count_problem(task, part, listing, _sizes(task, manifest, part, listing))
        yield from _foreign(task, part, listing, listings)
        yield from _altered(task, manifest, part, listing)


def count_problem(task: TaskSpec, part: str, listing: Listing, sizes: Collection[int]) -> Iterator[Problem]:
    """Check the number of images of a list that is not empty.

    Args:
        sizes: the accepted numbers; empty: all.
    """
    if listing.names and sizes and len(listing) not in sizes:
        expected = " or ".join(map(str, sorted(sizes)))
        message = f"lists {counted(len(listing), 'image')}, it should be {expected}"
        yield Problem(task.name, part, "count", str(listing.source), message)


def label_problems(task: TaskSpec, listings: Mapping[str, Listing]) -> Iterator[Problem]:
    """Check that labels are in range."""
    classes = classes_of(task, listings)
    for part, listing in listings.items():
        wrong = np.flatnonzero((listing.labels < 0) | (listing.labels >= classes))
        if len(wrong):
            first = wrong[0]
            message = (
                f"{counted(len(wrong), 'label')} out of range, the first {listing.labels[first]} of "
                f"{listing.names[first]}; the {classes} classes are 0 to {classes - 1}"
            )
            yield Problem(task.name, part, "label_range", str(listing.source), message)


def class_problems(task: TaskSpec, listings: Mapping[str, Listing]) -> Iterator[Problem]:
    """Check that the user's own data have at least two classes, and training images of each.

    Class folders that hold no image themselves, but several folders of images, are taken for folders of class
    folders. The labels of benchmarks are compared with their manifests instead. Lists with faults are not
    examined.
    """
    if task.suite != "own" or any(listing.faults for listing in listings.values()):
        return
    if not listings[TRAINVAL].names:
        return
    training = listings[TRAINVAL]
    known, classes, names = np.unique(training.labels), classes_of(task, listings), training.classes
    where, problem = str(training.source), partial(Problem, task.name, TRAINVAL)
    if classes == 1 or len(names) == 1:
        one = f"the folder {names[0]}/" if names else "label 0"
        higher = f"; is data.root={training.source / names[0]} meant?" if names else ""
        yield problem("class_count", where, f"holds a single class, {one}{higher}")
    elif message := _higher(listings):
        yield problem("class_level", where, message)
    elif len(known) < classes and known.min() >= 0:
        first = next((label for label, found in enumerate(known) if label != found), len(known))
        said = f"the folder {names[first]}/" if names else f"label {first}"
        message = f"{classes - len(known)} of {classes} classes have no training image, the first is {said}; "
        if names:
            message += f"data.images={task.drawn} are too few: one image of each class is needed"
        else:
            message += f"found are {_ranges(known)}, labels must be 0, 1, 2, ... without gaps"
        yield problem("class_coverage", where, message)


def _higher(listings: Mapping[str, Listing]) -> str:
    """Return the message about class folders that seem to be folders of class folders; empty if none do."""
    training = listings[TRAINVAL]
    top = training.source.relative_to(training.folder)
    holding: dict[str, set[PurePath]] = {name: set() for name in training.classes}
    for path in (PurePath(name) for listing in listings.values() for name in listing.names):
        if path.is_relative_to(top) and path.parts[len(top.parts)] in holding:
            holding[path.parts[len(top.parts)]].add(path.parent)
    no_class = {
        name: sorted(folders)
        for name, folders in holding.items()
        if len(folders) > 1 and top / name not in folders
    }
    if not no_class:
        return ""
    roots = dict.fromkeys(training.folder / min(folders, key=_depth).parent for folders in no_class.values())
    return (
        f"{' and '.join(_few([f'{name}/' for name in no_class]))}: no image there, but several folders of "
        f"images, which may be the classes; is {' or '.join(_few([f'data.root={root}' for root in roots]))} "
        "meant? Images for training and for testing belong in train/CLASS/ and test/CLASS/; a class folder "
        "with subfolders needs at least one image itself"
    )


def _depth(path: PurePath) -> int:
    return len(path.parts)


def _few(texts: Sequence[str]) -> list[str]:
    """Return the first three of some texts, and the number of others."""
    return [*texts[:3], *([f"{len(texts) - 3} more"] if len(texts) > 3 else [])]


def _ranges(labels: NDArray[np.int64]) -> str:
    """Return the first few of some sorted numbers as ranges, for example `1 to 5, 7`."""
    runs = np.split(labels, np.flatnonzero(np.diff(labels) != 1) + 1)
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:4]]
    return ", ".join(shown) + (", ..." if len(runs) > 4 else "")


def file_problems(
    task: TaskSpec, listings: Mapping[str, Listing], facts: Mapping[str, FileFacts]
) -> Iterator[Problem]:
    """Check that every listed file exists and is an image.

    Args:
        facts: facts of all listed files by name; with `decode`, images whose pixels cannot be decoded are
            problems too.
    """
    reported: set[str] = set()
    for part, listing in listings.items():
        for name in listing.names:
            if facts[name].error and name not in reported:
                reported.add(name)
                missing = facts[name].is_missing
                message = f"is not there, {listing.source.name} lists it" if missing else facts[name].error
                kind = "missing_file" if missing else "undecodable"
                yield Problem(task.name, part, kind, str(listing.folder / name), message)


def value_problems(
    task: TaskSpec, listings: Mapping[str, Listing], facts: Mapping[str, FileFacts]
) -> Iterator[Problem]:
    """Check that own images of more than 8 bits have values that can be read.

    Args:
        facts: facts of all listed files by name.
    """
    names = {name: part for part, listing in listings.items() for name in listing.names}
    for name, part in names.items() if task.suite == "own" else ():
        fact = facts[name]
        if flaw := not fact.error and value_flaw(fact.mode, fact.low, fact.high, fact.white):
            yield Problem(task.name, part, "values", str(listings[part].folder / name), flaw)


def repeated_lines(task: TaskSpec, manifest: Manifest, listings: Mapping[str, Listing]) -> Iterator[Problem]:
    """Check that no list names a file twice; the lists of few-shot sets may."""
    if manifest.shots:
        return
    for part, listing in listings.items():
        for name, count in Counter(listing.names).items():
            if count > 1:
                message = f"lists {name} {count} times"
                yield Problem(task.name, part, "repeated_line", str(listing.source), message)


def trainval_problems(
    task: TaskSpec, manifest: Manifest, listings: Mapping[str, Listing], facts: Mapping[str, FileFacts]
) -> Iterator[Problem]:
    """Check that VTAB's third list has the images and labels of the lists of train and val.

    That it has no others follows from the sizes of a benchmark; of own data it is checked.

    Args:
        facts: facts of all listed files by name; images are the same if their files are.
    """
    if manifest.shots or manifest.source == "tree":
        return
    train, val, both = (
        Counter(
            (facts[name].sha256, int(label))
            for name, label in zip(listings[part].names, listings[part].labels, strict=True)
        )
        for part in ("train", "val", TRAINVAL)
    )
    lacking = ((train + val) - both).total()
    further = (both - (train + val)).total() if task.suite == "own" else 0
    message = f"lacks {lacking} of the images (or has other labels for them) that train and val list"
    if further and not lacking:
        message = f"lists {further} images (or labels of them) that neither train nor val lists"
    if lacking or further:
        yield Problem(task.name, TRAINVAL, "trainval_differs", str(listings[TRAINVAL].source), message)


def classes_of(task: TaskSpec, listings: Mapping[str, Listing]) -> int:
    """Return the number of classes; for the user's own data, one more than the highest label."""
    return task.classes or 1 + max(int(listing.labels.max(initial=0)) for listing in listings.values())


def is_overridden(task: TaskSpec, part: str) -> bool:
    """Return whether the user has set another size for a list."""
    splits = ("train", "val") if part == TRAINVAL else (part,)
    return any(f"splits.{split}=" in task.override for split in splits)


def _sizes(task: TaskSpec, manifest: Manifest, part: str, listing: Listing) -> set[int]:
    """Return the accepted numbers of images of a list; empty where none is known."""
    known = manifest.lists.get(listing.source.name)
    if known is not None and not is_overridden(task, part):
        return {known.lines}
    if part not in SPLITS or part not in task.splits:
        return set()
    also = manifest.also_test if part == "test" and not task.override else []
    return {task.splits[part], *also}


def _foreign(
    task: TaskSpec, part: str, listing: Listing, listings: Mapping[str, Listing]
) -> Iterator[Problem]:
    """Check that a list of VTAB's layout names files of its own folder only."""
    by_folder: dict[str, list[str]] = {}
    for name in foreign(task, part, listing):
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    for folder, names in by_folder.items():
        swapped = folder in {folder_of(other) for other in listings}
        message = (
            f"{len(names)} of {len(listing)} lines name files of {folder or '.'}/, not of {folder_of(part)}/ "
            f"(first: {names[0]})"
        )
        message += ": lists swapped?" if swapped else ""
        kind = "swapped_lists" if swapped else "wrong_folder"
        yield Problem(task.name, part, kind, str(listing.source), message)


def _altered(task: TaskSpec, manifest: Manifest, part: str, listing: Listing) -> Iterator[Problem]:
    """Check that a list with a known hash is the circulated one: few-shot results depend on its images."""
    known = manifest.lists.get(listing.source.name)
    readable = not any(fault.kind in ("missing_list", "unreadable_list") for fault in listing.faults)
    if known is None or is_overridden(task, part) or not readable:
        return
    found = _sha256(listing.source)
    if found != known.sha256:
        names = {facts.sha256: name for name, facts in manifest.lists.items()}
        reason = f"it holds {names[found]}: swapped?" if found in names else "edited, or another version?"
        message = (
            f"is not the circulated list (SHA-256 {found[:16]}...); {reason} "
            f"The original: {manifest.about.get('origin', 'ask its authors')}"
        )
        yield Problem(task.name, part, "list_hash", str(listing.source), message)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
