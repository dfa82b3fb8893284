"""The text facts of an adapter file: everything but the backbone that rebuilding a model needs."""

from __future__ import annotations

import ast
import base64
from collections.abc import Callable
from dataclasses import dataclass

from petl_bench.errors import UserError
from petl_bench.packing.file import AdapterFile, VerifiedFile
from petl_bench.types import BackboneSpec, ModelSpec, RunSpec, changed, completed

SETTING = "a."
"""Stands before the adapter's own settings; short, because the container has a limit."""
_OPTION = "b."
"""Stands before the options of a backbone that has no label."""
_PRETRAINED = "pretrained"
_PRECISION = "p"
_PRECISIONS = {"": "fp32", "b": "bf16", "i": "int8"}
"""What stands for each, short because the container has a limit; float32 is not stated."""
FROM_FILE = "file"
"""Stands for the path of a weights file, which may differ from machine to machine."""


@dataclass(frozen=True)
class FileMetadata:
    """What an adapter file says of itself.

    Attributes:
        model: how to rebuild the model.
        task: name of the task it was trained for; empty where the file does not state it.
        normalization: of the input pixels.
        precision: what the backbone computed in.
        backbone_checksum: as `short_checksum` gives it; None where the file does not state it, because the
            file it was converted from did not.
    """

    model: ModelSpec
    task: str
    normalization: str
    precision: str
    backbone_checksum: str | None


def short_checksum(sha256: str) -> str:
    """The first 128 bits of a hexadecimal SHA-256, base64url: 22 characters."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)[:16]).decode().rstrip("=")


def describe(spec: RunSpec, backbone_sha256: str) -> dict[str, str]:
    """The metadata of a run's adapter file; settings of the adapter that are its defaults are left out."""
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
        "backbone": spec.backbone.display_name,
        "backbone_sha256": short_checksum(backbone_sha256),
    }
    letter = next(letter for letter, precision in _PRECISIONS.items() if precision == spec.precision)
    if letter:
        metadata[_PRECISION] = letter
    if not spec.backbone.label:
        source = spec.backbone.weights
        metadata["image_size"] = str(spec.backbone.image_size)
        if source != _PRETRAINED:
            metadata["weights"] = "random" if source == "random" else FROM_FILE
        metadata |= {_OPTION + key: _compact(value) for key, value in spec.backbone.options.items()}
    return metadata | {SETTING + key: repr(value) for key, value in changed(spec.adapter).items()}


def interpret(file: AdapterFile, bundled: Callable[[str], BackboneSpec], where: str) -> FileMetadata:
    """The facts of a loaded file.

    Args:
        bundled: backbone label -> its spec, for backbones that the file names by label.
        where: the file's path, for messages.

    Raises:
        UserError: a fact is missing or cannot be read.
    """
    metadata = file.metadata
    try:
        if "image_size" in metadata:
            options, size = _settings(metadata, _OPTION), int(metadata["image_size"])
            source = metadata.get("weights", _PRETRAINED)
            backbone = BackboneSpec(metadata["backbone"], source, size, options)
        else:
            backbone = bundled(metadata["backbone"])
        model = ModelSpec(
            backbone,
            completed(metadata["adapter"], stated_settings(file)),
            int(metadata["hidden"]),
            float(metadata["scale"]),
            metadata["quantizer"],
            int(metadata["bits"]),
            metadata["head"],
            next(t.entry.shape[0] for t in file.head if t.entry.name == "weight"),
        )
        return FileMetadata(
            model,
            metadata["task"],
            metadata["normalization"],
            stated_precision(file, where),
            metadata.get("backbone_sha256"),
        )
    except (KeyError, ValueError, SyntaxError, StopIteration) as error:
        raise UserError(f"{where}: the adapter file's metadata cannot be read: {error}") from error


def stated_precision(file: AdapterFile | VerifiedFile, where: str) -> str:
    """What a file is to be evaluated in.

    Raises:
        UserError: it names none that there is.
    """
    letter = file.metadata.get(_PRECISION, "")
    if letter not in _PRECISIONS:
        known = ", ".join(f"{letter!r} ({precision})" for letter, precision in _PRECISIONS.items())
        raise UserError(f"{where}: its metadata name an unknown precision, {letter!r}; known: {known}")
    return _PRECISIONS[letter]


def stated_settings(file: AdapterFile) -> dict[str, object]:
    """The adapter's own settings that a file states; others are the defaults of its method."""
    return _settings(file.metadata, SETTING)


def _compact(value: object) -> str:
    """`repr` without the spaces that it puts into lists, which a URL query string triples."""
    return f"[{','.join(map(_compact, value))}]" if isinstance(value, list) else repr(value)


def _settings(metadata: dict[str, str], prefix: str) -> dict[str, object]:
    found = {key: value for key, value in metadata.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): ast.literal_eval(value) for key, value in found.items()}
