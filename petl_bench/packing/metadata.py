"""Reading of the metadata of adapter files: settings from which a model is rebuilt, given its backbone."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from petl_bench import plugins
from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.packing.file import AdapterFile, VerifiedFile
from petl_bench.packing.layout import inflated
from petl_bench.packing.stated import (
    COMPRESS,
    FLOATS,
    NAMES,
    OPTION,
    PLUGINS,
    PRECISION,
    PRECISIONS,
    PRETRAINED,
    RESIZE,
    SETTING,
)
from petl_bench.types import (
    FLOAT_BITS,
    NORMALIZATIONS,
    NOT_COMPRESSED,
    RESIZES,
    BackboneSpec,
    ModelSpec,
    RunSettings,
    check_range,
    completed,
    declarations,
)

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
            options, size = _settings(metadata, OPTION, where), int(metadata["image_size"])
            source = metadata.get("weights", PRETRAINED)
            backbone = BackboneSpec(facts["backbone"], source, size, options)
        else:
            backbone = bundled(facts["backbone"])
        adapter = completed(facts["adapter"], stated_settings(file, where))
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: the adapter file's metadata cannot be read: {error}") from error
    numbers = facts["hidden"], facts["scale"], facts["quantizer"], facts["bits"], facts["head"]
    return FileMetadata(
        ModelSpec(backbone, adapter, *numbers, stated_classes(file, where), facts[FLOATS], facts[COMPRESS]),
        facts["task"],
        facts["normalization"],
        stated_precision(file, where),
        stated_resize(file, where),
        stated_class_names(file, where),
        metadata.get("backbone_sha256"),
    )


_FACTS = ("adapter", "hidden", "bits", "quantizer", "scale", "head", "task", "normalization", "backbone")
"""Entries that every file has."""
_USUAL = {FLOATS: str(FLOAT_BITS), COMPRESS: NOT_COMPRESSED}
"""Entries that a file has only if they differ from these values."""


def stated_facts(file: AdapterFile, where: str) -> dict[str, Any]:
    """Return the entries that every file has, checked by the declarations of the settings of their names.

    Args:
        where: path of the file, for messages.

    Raises:
        UserError: an entry is missing, or has a value out of range.
    """
    facts: dict[str, Any] = {}
    for name in (*_FACTS, *_USUAL):
        text = file.metadata.get(name, _USUAL.get(name))
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


_KINDS: dict[str, Callable[[str], Any]] = {"hidden": int, "bits": int, FLOATS: int, "scale": float}


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
    letter = file.metadata.get(PRECISION, "")
    if letter not in PRECISIONS:
        known = ", ".join(f"{letter!r} ({precision})" for letter, precision in PRECISIONS.items())
        raise UserError(f"{where}: its metadata name an unknown precision, {letter!r}; known: {known}")
    return PRECISIONS[letter]


def stated_resize(file: AdapterFile, where: str) -> str:
    """Return how a file trained on the user's own data says that images are resized; empty if it does not.

    Raises:
        UserError: the file states an unknown way.
    """
    resize = file.metadata.get(RESIZE, "")
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
    if NAMES not in file.metadata:
        return ()
    try:
        text = inflated(file.metadata[NAMES], _MOST_NAMES).decode("utf-8", "surrogateescape")
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
    return file.metadata.get(PLUGINS, "")


def bytes_of_names(file: AdapterFile) -> int:
    """Return the bytes of a file, a part of its overhead, that state class names."""
    return len(f"&{NAMES}={file.metadata[NAMES]}") if NAMES in file.metadata else 0


def stated_settings(file: AdapterFile, where: str) -> dict[str, object]:
    """Return the adapter's own settings that a file states; others have the defaults of the method.

    Raises:
        UserError: a setting cannot be read.
    """
    return _settings(file.metadata, SETTING, where)


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
