"""What a manifest in data_manifests/ states: the facts of one data set. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ListFacts:
    """One list file as its authors circulate it."""

    lines: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Facts of one data set, and nothing that a run decides."""

    name: str
    suite: str
    group: str
    classes: int
    """0: the user's own data, whose labels are counted."""
    source: str
    """Name of the generator or of the layout in petl_bench.data."""
    splits: dict[str, int]
    """Number of images of train, val and test; train is not here where `lists` says it."""
    metric: str
    resize: str
    """Preprocessing: one of RESIZES."""
    position: int = 0
    """Its place in the tables of its benchmark, from 1; 0: after the others of its group, by name."""
    fingerprint: str = ""
    """Of data that are the same everywhere; empty where files are circulated in several copies."""
    also_test: list[int] = field(default_factory=list)
    """Further sizes of test that circulated copies have."""
    train_classes: int = 0
    """Classes that the 1,000 training images cover, where not all."""
    repeats: str = ""
    """Why the same image in train and test is no mistake of this copy."""
    folders: list[str] = field(default_factory=list)
    """Where under the root its lists are: the usual folder first, then the variants that circulate."""
    images: list[str] = field(default_factory=list)
    """The same for its images, where they are elsewhere."""
    shots: list[int] = field(default_factory=list)
    split_seeds: list[int] = field(default_factory=list)
    lists: dict[str, ListFacts] = field(default_factory=dict)
    """File name -> facts, where known."""
    about: dict[str, str] = field(default_factory=dict)
    """title, origin (where to get it), licence, version; `hub`: a data set repository that holds it."""
