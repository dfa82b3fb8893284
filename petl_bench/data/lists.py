"""List files `relative/path.jpg LABEL`, read with every fault named."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fault:
    """One thing wrong with data: `kind` for scripts, `path` where it is, `message` what it is."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class Listing:
    """The images of one split: paths relative to `folder`, and labels (N,).

    `source` is the list file, or the folder that was walked.
    """

    folder: Path
    source: Path
    names: list[str]
    labels: NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)


def read_list(path: Path, folder: Path) -> Listing:
    """The lines of a list file; what cannot be used is left out and named in `faults`.

    Labels are split off from the right, because paths may hold spaces.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fault = Fault("missing_list", str(path), "the list file is not there")
        return Listing(folder, path, [], np.empty(0, np.int64), [fault])
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault("unreadable_list", str(path), f"the list file cannot be read: {error}")
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
    pure = PurePosixPath(name)
    if not name or "\0" in name or not re.fullmatch("-?[0-9]{1,9}", label):
        return "malformed_line", "is not `relative/path.jpg LABEL` with a whole number as label"
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        return "escaping_path", "leads out of the data folder; paths must be relative, with / and without .."
    return None
