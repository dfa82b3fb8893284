"""Metadata of adapter files: the settings from which a model is rebuilt, given its backbone."""

from __future__ import annotations

import ast
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from petl_bench import plugins
from petl_bench.backbones import weights
from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.packing.file import AdapterFile, VerifiedFile
from petl_bench.packing.layout import deflated, inflated
from petl_bench.types import (
    NORMALIZATIONS,
    RESIZES,
    BackboneSpec,
    ModelSpec,
    RunSettings,
    RunSpec,
    changed,
    check_range,
    completed,
    declarations,
)

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
_RESIZE = "resize"
_NAMES = "names"
_PLUGINS = "plugins"
_MOST_NAMES = 1 << 24
"""Maximum bytes of all class names of a file."""


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of an adapter file.

    Attributes:
        model: description from which the model is rebuilt.
        task: name of the task that the model was trained for; empty if the file does not state it.
        normalization: normalization of the input pixels.
        precision: precision in which the backbone was computed.
        resize: how images are brought to the size of the input, one of RESIZES, if the task was the user's
            own data; empty for other tasks, whose manifests state it, and in older files.
        class_names: names of the classes by label; empty if the file does not state them.
        backbone_checksum: checksum of the backbone's weights, as `short_checksum` returns it; None in files
            converted from a format that does not state it.
    """

    model: ModelSpec
    task: str
    normalization: str
    precision: str
    resize: str
    class_names: tuple[str, ...]
    backbone_checksum: str | None


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
        metadata[_RESIZE] = spec.task.resize
        metadata |= names_entry(class_names)
    letter = next(letter for letter, precision in _PRECISIONS.items() if precision == spec.precision)
    if letter:
        metadata[_PRECISION] = letter
    if plugged:
        metadata[_PLUGINS] = plugged
    if not by_label:
        source = spec.backbone.weights
        metadata["image_size"] = str(spec.backbone.image_size)
        if source != _PRETRAINED:
            metadata["weights"] = source if source == "random" or weights.bundled(source) else FROM_FILE
        metadata |= {_OPTION + key: _compact(value) for key, value in spec.backbone.options.items()}
    return metadata | {SETTING + key: repr(value) for key, value in changed(spec.adapter).items()}


def names_entry(class_names: Sequence[str]) -> dict[str, str]:
    """Return the entry of the metadata that states class names; without names, no entry.

    Null characters separate the names, since names of folders may contain all others. Those that are not
    UTF-8 are kept as Python represents them.
    """
    text = "\0".join(class_names).encode("utf-8", "surrogateescape")
    return {_NAMES: deflated(text)} if class_names else {}


def interpret(file: AdapterFile, bundled: Callable[[str], BackboneSpec], where: str) -> FileMetadata:
    """Interpret the metadata of a loaded file.

    Args:
        file: the adapter file.
        bundled: function from a label to the backbone, for files that name their backbone by a label.
        where: path of the file, for messages.

    Raises:
        UserError: an entry is missing or cannot be read, or the file needs a plug-in that is not in use.
    """
    metadata, facts = file.metadata, stated_facts(file, where)
    plugins.require(stated_plugins(file), where)
    try:
        if "image_size" in metadata:
            options, size = _settings(metadata, _OPTION, where), int(metadata["image_size"])
            source = metadata.get("weights", _PRETRAINED)
            backbone = BackboneSpec(facts["backbone"], source, size, options)
        else:
            backbone = bundled(facts["backbone"])
        adapter = completed(facts["adapter"], stated_settings(file, where))
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: the adapter file's metadata cannot be read: {error}") from error
    numbers = facts["hidden"], facts["scale"], facts["quantizer"], facts["bits"]
    return FileMetadata(
        ModelSpec(backbone, adapter, *numbers, facts["head"], stated_classes(file, where)),
        facts["task"],
        facts["normalization"],
        stated_precision(file, where),
        stated_resize(file, where),
        stated_class_names(file, where),
        metadata.get("backbone_sha256"),
    )


_FACTS = ("adapter", "hidden", "bits", "quantizer", "scale", "head", "task", "normalization", "backbone")
"""Entries that every file has."""


def stated_facts(file: AdapterFile, where: str) -> dict[str, Any]:
    """Return the entries that every file has, checked by the declarations of the settings of their names.

    Args:
        where: path of the file, for messages.

    Raises:
        UserError: an entry is missing, or has a value out of range.
    """
    facts: dict[str, Any] = {}
    for name in _FACTS:
        text = file.metadata.get(name)
        if text is None:
            raise UserError(f"{where}: the adapter file's metadata cannot be read: they lack {name}")
        known = declarations(RunSettings).get(name)
        kind = _KINDS.get(name, str)
        try:
            facts[name] = kind(text)
            if known is not None:
                check_range(known, facts[name], name)
        except (ValueError, UserError) as error:
            said = f"{name}={text!r}" + (f": it must be {known.right}" if known is not None else "")
            raise UserError(f"{where}: the adapter file's metadata cannot be read: {said}") from error
    if facts["normalization"] not in NORMALIZATIONS:
        hint = did_you_mean(facts["normalization"], NORMALIZATIONS)
        raise UserError(f"{where}: unknown normalization {facts['normalization']!r}: {hint}")
    return facts


_KINDS: dict[str, Callable[[str], Any]] = {"hidden": int, "bits": int, "scale": float}


def stated_classes(file: AdapterFile, where: str) -> int:
    """Return the number of classes of a file's head.

    Raises:
        UserError: the file has no head.
    """
    shapes = [t.entry.shape for t in file.head if t.entry.name == "weight"]
    if not shapes or len(shapes[0]) != 2:
        raise UserError(f"{where}: damaged adapter file: it has no head with one row per class")
    return shapes[0][0]


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


def stated_resize(file: AdapterFile, where: str) -> str:
    """Return how a file trained on the user's own data says that images are resized; empty if it does not.

    Raises:
        UserError: the file states an unknown way.
    """
    resize = file.metadata.get(_RESIZE, "")
    if resize and resize not in RESIZES:
        raise UserError(
            f"{where}: its metadata name an unknown way to resize: {did_you_mean(resize, RESIZES)}"
        )
    return resize


def stated_class_names(file: AdapterFile, where: str) -> tuple[str, ...]:
    """Return the class names that a file states; empty if it states none.

    Raises:
        UserError: they cannot be read, or are not as many as the classes of the head.
    """
    if _NAMES not in file.metadata:
        return ()
    try:
        text = inflated(file.metadata[_NAMES], _MOST_NAMES).decode("utf-8", "surrogateescape")
    except ValueError as error:
        raise UserError(f"{where}: its class names cannot be read: {error}") from error
    names, classes = tuple(text.split("\0")), stated_classes(file, where)
    if len(names) != classes:
        raise UserError(
            f"{where}: states {counted(len(names), 'class name')} for {counted(classes, 'class')}"
        )
    return names


def stated_plugins(file: AdapterFile) -> str:
    """Return the names and versions of the plug-ins that a file needs, separated by commas."""
    return file.metadata.get(_PLUGINS, "")


def bytes_of_names(file: AdapterFile) -> int:
    """Return the bytes of a file, a part of its overhead, that state class names."""
    return len(f"&{_NAMES}={file.metadata[_NAMES]}") if _NAMES in file.metadata else 0


def stated_settings(file: AdapterFile, where: str) -> dict[str, object]:
    """Return the adapter's own settings that a file states; others have the defaults of the method.

    Raises:
        UserError: a setting cannot be read.
    """
    return _settings(file.metadata, SETTING, where)


def _compact(value: object) -> str:
    """Return `repr` without the spaces in lists, each of which takes three bytes in a URL query string."""
    return f"[{','.join(map(_compact, value))}]" if isinstance(value, list) else repr(value)


def _settings(metadata: dict[str, str], prefix: str, where: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, text in metadata.items():
        if key.startswith(prefix):
            try:
                found[key.removeprefix(prefix)] = ast.literal_eval(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
                said = f"{key}={text!r}: expected a literal of Python"
                raise UserError(f"{where}: the adapter file's metadata cannot be read: {said}") from error
    return found
