"""Writing of the metadata of adapter files, and the names of their entries (petl_bench.packing.metadata)."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from petl_bench.backbones import weights
from petl_bench.packing.layout import deflated
from petl_bench.types import FLOAT_BITS, RunSpec, changed

SETTING = "a."
"""Prefix of the adapter's own settings; prefixes are short because the size of a file is limited."""
OPTION = "b."
"""Prefix of the options of a backbone without label."""
PRETRAINED = "pretrained"
PRECISION = "p"
PRECISIONS = {"": "fp32", "b": "bf16", "i": "int8"}
"""Precisions by the letters that stand for them; fp32 is not stated."""
FROM_FILE = "file"
"""Value that stands for the path of a weights file, since paths differ between machines."""
FLOATS = "float_bits"
COMPRESS = "compress"
RESIZE = "resize"
NAMES = "names"
PLUGINS = "plugins"


def short_checksum(sha256: str) -> str:
    """Return the first 128 bits of a hexadecimal SHA-256 in base64url: 22 characters."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)[:16]).decode().rstrip("=")


def describe(
    spec: RunSpec,
    backbone_sha256: str,
    by_label: bool = True,
    class_names: Sequence[str] = (),
    plugged: str = "",
) -> dict[str, str]:
    """Return the metadata of a run's adapter file.

    Settings of the adapter that have their default values are left out. Resizing and class names are stated
    for the user's own data only, since the manifests of other tasks have them.

    Args:
        spec: the run.
        backbone_sha256: hexadecimal SHA-256 of the weights of its backbone.
        by_label: whether the label of its backbone, if it has one, says all about the architecture and the
            size of the input.
        class_names: names of the classes by label; empty if they are not known.
        plugged: name and version of the plug-ins that the file needs, separated by commas.
    """
    by_label = by_label and bool(spec.backbone.label)
    metadata = {
        "adapter": spec.adapter.name,
        "hidden": str(spec.hidden),
        "bits": str(spec.bits),
        "quantizer": spec.quantizer,
        "scale": repr(spec.scale),
        "head": spec.head,
        "seed": str(spec.seed),
        "task": spec.task.name,
        "normalization": spec.train.normalization,
        "backbone": spec.backbone.label if by_label else spec.backbone.name,
        "backbone_sha256": short_checksum(backbone_sha256),
    }
    if spec.task.suite == "own":
        metadata[RESIZE] = spec.task.resize
        metadata |= names_entry(class_names)
    letter = next(letter for letter, precision in PRECISIONS.items() if precision == spec.precision)
    if letter:
        metadata[PRECISION] = letter
    if spec.float_bits != FLOAT_BITS:
        metadata[FLOATS] = str(spec.float_bits)
    if spec.compressed:
        metadata[COMPRESS] = spec.compress
    if plugged:
        metadata[PLUGINS] = plugged
    if not by_label:
        source = spec.backbone.weights
        metadata["image_size"] = str(spec.backbone.image_size)
        if source != PRETRAINED:
            metadata["weights"] = source if source == "random" or weights.bundled(source) else FROM_FILE
        metadata |= {OPTION + key: _compact(value) for key, value in spec.backbone.options.items()}
    return metadata | {SETTING + key: repr(value) for key, value in changed(spec.adapter).items()}


def names_entry(class_names: Sequence[str]) -> dict[str, str]:
    """Return the entry of the metadata that states class names; without names, no entry.

    Null characters separate the names, since names of folders may contain all others. Those that are not
    UTF-8 are kept as Python represents them.
    """
    text = "\0".join(class_names).encode("utf-8", "surrogateescape")
    return {NAMES: deflated(text)} if class_names else {}


def _compact(value: object) -> str:
    """Return `repr` without the spaces in lists, each of which takes three bytes in a URL query string."""
    return f"[{','.join(map(_compact, value))}]" if isinstance(value, list) else repr(value)
