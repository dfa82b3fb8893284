"""Data of tasks: manifests, files and their checks, and splits of images. Imports neither torch nor Hydra."""

from petl_bench.data import bundled, layouts, pocket19, sprites  # noqa: F401 - register generators and layouts
from petl_bench.data.base import GENERATORS, Ragged, Split, digest, generate
from petl_bench.data.manifest_files import MANIFEST_DIR, manifests
from petl_bench.data.resolve import Load, class_names, expected_files, labels, load, manifest_of, resolve

__all__ = [
    "GENERATORS",
    "MANIFEST_DIR",
    "Load",
    "Ragged",
    "Split",
    "class_names",
    "digest",
    "expected_files",
    "generate",
    "labels",
    "load",
    "manifest_of",
    "manifests",
    "resolve",
]
