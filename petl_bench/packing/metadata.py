"""Metadata of adapter files: the settings from which a model is rebuilt, given its backbone."""

from __future__ import annotations

import ast
import base64
from collections.abc import Callable
from dataclasses import dataclass

from petl_bench.backbones import weights
from petl_bench.errors import UserError
from petl_bench.packing.file import AdapterFile, VerifiedFile
from petl_bench.types import BackboneSpec, ModelSpec, RunSpec, changed, completed

SETTING = "a."
"""Prefix of the adapter's own settings; prefixes are short because the size of a file is limited."""
_OPTION = "b."
"""Prefix of the options of a backbone without label."""
_PRETRAINED = "pretrained"
_PRECISION = "p"
_PRECISIONS = {"": "fp32", "b": "bf16", "i": "int8"}
"""Precisions by the letters that stand for them; fp32 is not stated."""
FROM_FILE = "file"
"""Value that stands for the path of a weights file, since paths differ between machines."""


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of an adapter file.

    Attributes:
        model: description from which the model is rebuilt.
        task: name of the task that the model was trained for; empty if the file does not state it.
        normalization: normalization of the input pixels.
        precision: precision in which the backbone was computed.
        backbone_checksum: checksum of the backbone's weights, as `short_checksum` returns it; None in files
            converted from a format that does not state it.
    """

    model: ModelSpec
    task: str
    normalization: str
    precision: str
    backbone_checksum: str | None


def short_checksum(sha256: str) -> str:
    """Return the first 128 bits of a hexadecimal SHA-256 in base64url: 22 characters."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)[:16]).decode().rstrip("=")


def describe(spec: RunSpec, backbone_sha256: str, by_label: bool = True) -> dict[str, str]:
    """Return the metadata of a run's adapter file.

    Settings of the adapter that have their default values are left out.

    Args:
        spec: the run.
        backbone_sha256: hexadecimal SHA-256 of the weights of its backbone.
        by_label: whether the label of its backbone, if it has one, says all about the architecture and the
            size of the input.
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
    letter = next(letter for letter, precision in _PRECISIONS.items() if precision == spec.precision)
    if letter:
        metadata[_PRECISION] = letter
    if not by_label:
        source = spec.backbone.weights
        metadata["image_size"] = str(spec.backbone.image_size)
        if source != _PRETRAINED:
            metadata["weights"] = source if source == "random" or weights.bundled(source) else FROM_FILE
        metadata |= {_OPTION + key: _compact(value) for key, value in spec.backbone.options.items()}
    return metadata | {SETTING + key: repr(value) for key, value in changed(spec.adapter).items()}


def interpret(file: AdapterFile, bundled: Callable[[str], BackboneSpec], where: str) -> FileMetadata:
    """Interpret the metadata of a loaded file.

    Args:
        file: the adapter file.
        bundled: function from a label to the backbone, for files that name their backbone by a label.
        where: path of the file, for messages.

    Raises:
        UserError: an entry is missing or cannot be read.
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
    """Return the precision in which a file must be evaluated.

    Raises:
        UserError: the file states an unknown precision.
    """
    letter = file.metadata.get(_PRECISION, "")
    if letter not in _PRECISIONS:
        known = ", ".join(f"{letter!r} ({precision})" for letter, precision in _PRECISIONS.items())
        raise UserError(f"{where}: its metadata name an unknown precision, {letter!r}; known: {known}")
    return _PRECISIONS[letter]


def stated_settings(file: AdapterFile) -> dict[str, object]:
    """Return the adapter's own settings that a file states; others have the defaults of the method."""
    return _settings(file.metadata, SETTING)


def _compact(value: object) -> str:
    """Return `repr` without the spaces in lists, each of which takes three bytes in a URL query string."""
    return f"[{','.join(map(_compact, value))}]" if isinstance(value, list) else repr(value)


def _settings(metadata: dict[str, str], prefix: str) -> dict[str, object]:
    found = {key: value for key, value in metadata.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): ast.literal_eval(value) for key, value in found.items()}
