"""List files of images: lines `relative/path.jpg LABEL`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from petl_bench.errors import UserError
from petl_bench.files import MB, read_text

LIST_LIMIT = 100 * MB
"""Maximum bytes of a list file."""


@dataclass(frozen=True)
class Fault:
    """One fault of a list or folder.

    Attributes:
        kind: one word for scripts.
        path: file or folder concerned.
        message: what is wrong with it.
    """

    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class Listing:
    """Images and labels of one list.

    Attributes:
        folder: folder that the names are relative to.
        source: the list file, or the folder in which the images were found.
        names: paths of the images.
        labels: (N,).
        faults: lines that could not be used, and other faults.
        classes: names of the classes by label, where they are known.
        left_out: paths below `folder` that are not used, by reason.
    """

    folder: Path
    source: Path
    names: list[str]
    labels: NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


def read_list(path: Path, folder: Path) -> Listing:
    """Read a list file. Lines that cannot be used are left out and described in `faults`.

    Labels are split off from the right, because paths may contain spaces.

    Args:
        path: the list file.
        folder: folder that its paths are relative to.
    """
    try:
        text = read_text(path, LIST_LIMIT)
    except UserError as error:
        reason = str(error).removeprefix(str(path)).lstrip(":, ").removeprefix("cannot be read: ")
        fault = Fault("unreadable_list", str(path), f"the list file cannot be read: {reason}")
        if not os.path.lexists(path):
            fault = Fault("missing_list", str(path), "the list file is not there")
        return Listing(folder, path, [], np.empty(0, np.int64), [fault])
    names, labels, faults = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        name, _, label = line.rstrip().rpartition(" ")
        problem = _problem(name.rstrip(), label)
        if problem is None:
            names.append(name.rstrip())
            labels.append(int(label))
        else:
            kind, what = problem
            faults.append(Fault(kind, str(path), f"line {number} {what}: {line[:120]!r}"))
    if not names and not faults:
        faults.append(Fault("empty_list", str(path), "the list file is empty"))
    return Listing(folder, path, names, np.array(labels, np.int64), faults)


def _problem(name: str, label: str) -> tuple[str, str] | None:
    """Return kind and description of the fault of a line; None if it has none."""
    pure = PurePosixPath(name)
    if not name or "\0" in name or not re.fullmatch("-?[0-9]{1,9}", label):
        return "malformed_line", "is not `relative/path.jpg LABEL` with a whole number as label"
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        return "escaping_path", "leads out of the data folder; paths must be relative, with / and without .."
    return None
