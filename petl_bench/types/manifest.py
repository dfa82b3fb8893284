"""The facts of one data set, as a manifest in data_manifests/ states them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ListFacts:
    """One list file as its authors circulate it."""

    lines: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Facts of one data set that no setting of a run changes."""

    name: str
    suite: str
    group: str
    classes: int
    """Number of classes; 0 for the user's own data, whose labels are counted."""
    source: str
    """Name of the generator or of the layout in petl_bench.data."""
    splits: dict[str, int]
    """Number of images of train, val and test; for few-shot sets without train, which its lists state."""
    metric: str
    resize: str
    """Preprocessing: one of RESIZES."""
    position: int = 0
    """Position in the tables of its benchmark, from 1; 0: after the others of its group, by name."""
    fingerprint: str = ""
    """Fingerprint of data that are the same everywhere; empty where several copies are circulated."""
    also_test: list[int] = field(default_factory=list)
    """Further sizes of the test split that circulated copies have."""
    train_classes: int = 0
    """Number of classes that the 1,000 training images cover, if not all; else 0."""
    class_names: list[str] = field(default_factory=list)
    """Names of the classes by label, where they are known."""
    repeats: str = ""
    """Reason why an image that is both in train and in test is no mistake of this copy."""
    folders: list[str] = field(default_factory=list)
    """Folders of its lists below the root: the usual one first, then variants that are circulated."""
    images: list[str] = field(default_factory=list)
    """Folders of its images below the root, where they are not those of the lists."""
    shots: list[int] = field(default_factory=list)
    split_seeds: list[int] = field(default_factory=list)
    lists: dict[str, ListFacts] = field(default_factory=dict)
    """Facts of list files by their names, where known."""
    about: dict[str, str] = field(default_factory=dict)
    """title, origin (where to get it), licence, version; `hub`: a data set repository that holds it;
    `asks`: the question to each image; `upper_bound`: see petl_bench.dev.upper_bound."""
