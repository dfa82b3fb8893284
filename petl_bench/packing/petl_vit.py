"""The authors' files: a .bin without header, and the .yaml that stood beside it when it was written.

Source: the released code of arXiv 2307.16867 (JieShibo/PETL-ViT, folder binary_adapter). The .bin holds the
tensors of ViT-B/16 in module order, the head last. A matrix is its packed codes, float32 mean and std; a
float32 head its weight, then its bias. The .yaml says all else: what the bytes mean, and the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import yaml

from petl_bench.errors import UserError, did_you_mean
from petl_bench.packing.file import AdapterFile
from petl_bench.packing.section import Format
from petl_bench.packing.tensors import Entry, StoredTensor
from petl_bench.types import FLOAT_BITS

BACKBONE, QUANTIZER, NORMALIZATION = "vit_b16_in21k", "l1_median", "none"
"""What every such file was trained with, in our names."""
BITS = (1, 2, 4, 8)
"""Widths of which a byte holds whole codes: the only ones that the released code has below 32."""
_THEIR_BACKBONE = "vit_base_patch16_224_in21k"
_DIM, _BLOCKS = 768, 12
_MATRICES = {"adaptformer": ("down", "up"), "lora": ("q.down", "q.up", "v.down", "v.up")}
_HEADS = {"linear": "", "binary": "-bihead"}
"""Our heads and what stands for them at the end of a method's name."""
_KEYS = {"dim": "hidden", "bit": "bits", "num_class": "classes", "scale": "scale", "dataset": "dataset"}
"""Keys of the .yaml that hold one setting each, and our names for these."""
_SHOWN = 4
"""Readings that a message lists at most."""


@dataclass(frozen=True)
class Reading:
    """What the bytes of a .bin are taken for: they do not say it themselves."""

    adapter: str
    hidden: int
    bits: int
    head: str
    classes: int

    def block(self, index: int) -> list[Entry]:
        """The matrices of one block: `down` (hidden, 768) and `up` (768, hidden)."""
        shapes = {"down": (self.hidden, _DIM), "up": (_DIM, self.hidden)}
        names = _MATRICES[self.adapter]
        return [Entry(f"{index}.{name}", shapes[name.rpartition(".")[2]], self.bits) for name in names]

    @property
    def layouts(self) -> tuple[list[Entry], list[Entry]]:
        """The tensors of adapter and head."""
        linear = self.head == "linear"
        head = [Entry("weight", (self.classes, _DIM), FLOAT_BITS if linear else 1)]
        if linear:
            head.append(Entry("bias", (self.classes,), FLOAT_BITS))
        return [entry for index in range(_BLOCKS) for entry in self.block(index)], head

    @property
    def nbytes(self) -> int:
        """AdaptFormer 24, LoRA 48 * (768 * hidden * bits / 8 + 8); head 4 * 769 or 96 * classes + 8."""
        head = 4 * (_DIM + 1) * self.classes if self.head == "linear" else _DIM // 8 * self.classes + 8
        return _BLOCKS * sum(entry.nbytes for entry in self.block(0)) + head

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


READING = tuple(field.name for field in fields(Reading))


def reading(values: Mapping[str, Any], size: int, where: str) -> Reading:
    """The reading of a .bin of `size` bytes that these values give.

    Args:
        values: a field each; `head` may be left out, because the size tells.
        where: path of the file, for messages.

    Raises:
        UserError: a value that the format cannot hold, or another size than they make.
    """
    _check(values, where)
    found = [Reading(**{"head": head, **values}) for head in _HEADS]
    fits = [one for one in found if one.nbytes == size]
    if not fits:
        sizes = _or(dict.fromkeys(f"{one.nbytes} ({one.head} head)" for one in found))
        said = ", ".join(f"{name} {value}" for name, value in values.items())
        raise UserError(f"{where}: {size} bytes, but {said} make {sizes}; {_one_change(size, values)}")
    return fits[0]


def _check(values: Mapping[str, Any], where: str) -> None:
    for name, known in (("adapter", _MATRICES), ("head", _HEADS)):
        if name in values and values[name] not in known:
            raise UserError(f"{where}: {name} {values[name]}: the authors' format has {_or(known)} alone")
    if values["bits"] == FLOAT_BITS:
        raise UserError(f"{where}: bits 32: the authors' format drops 32-bit adapters and keeps their head")
    if values["bits"] not in BITS:
        raise UserError(f"{where}: bits {values['bits']}: the authors' format has {_or(BITS)} alone")
    for name in ("hidden", "classes"):
        if values[name] < 1:
            raise UserError(f"{where}: {name} {values[name]} is out of range: it must be 1 or more")


def _one_change(size: int, values: Mapping[str, Any]) -> str:
    """What the size would fit if one value were another; or that it fits nothing near."""
    changes = [
        {name: getattr(other, name) for name in values if getattr(other, name) != values[name]}
        for other in _candidates(size)
    ]
    found = [f"{name} {value}" for change in changes if len(change) == 1 for name, value in change.items()]
    return f"it would fit {_or(found)}" if found else "no one other value would fit: is the file truncated?"


def _candidates(size: int) -> Iterator[Reading]:
    """All readings of a .bin of `size` bytes, hidden up to 768."""
    for adapter in _MATRICES:
        for bits in BITS:
            for hidden in range(1, _DIM + 1):
                rest = size - Reading(adapter, hidden, bits, "linear", 1).nbytes + 4 * (_DIM + 1)
                if rest <= 0:
                    break
                for head, each, fixed in (("linear", 4 * (_DIM + 1), 0), ("binary", _DIM // 8, 8)):
                    classes, left = divmod(rest - fixed, each)
                    if classes > 0 and left == 0:
                        yield Reading(adapter, hidden, bits, head, classes)


def fitting(size: int, known: Mapping[str, object]) -> str:
    """A clause on the readings of a .bin of `size` bytes with these values."""
    found = [other for other in _candidates(size) if known.items() <= asdict(other).items()]
    if not found:
        return f"its {size} bytes fit none: is the file truncated?"
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"its {size} bytes fit {'; '.join(map(str, found[:_SHOWN]))}{more}"


def read(data: bytes, reading: Reading, scale: float, task: str, where: str) -> AdapterFile:
    """An adapter file of the tensors of a .bin; it does not state the checksum of its backbone.

    Args:
        data: the whole .bin, of the reading's size.
        task: our name of it; empty where unknown.
        where: its path, for messages.

    Raises:
        UserError: numbers that no training leaves.
    """
    layouts, layout = reading.layouts, Format("adapter", None, 4)
    end = sum(entry.nbytes for entry in layouts[0])
    adapter, _ = layout.read(data[:end], layouts[0], code=False)
    head, _ = layout.read(data[end:], layouts[1], code=False)
    for tensor in [*adapter, *head]:
        if not _plausible(tensor):
            raise UserError(
                f"{where}: tensor {tensor.entry.name} holds no trained values read as {reading}: "
                "the file is damaged, or other options are right"
            )
    metadata = {
        "adapter": reading.adapter,
        "hidden": str(reading.hidden),
        "bits": str(reading.bits),
        "quantizer": QUANTIZER,
        "scale": repr(scale),
        "head": reading.head,
        "task": task,
        "normalization": NORMALIZATION,
        "backbone": BACKBONE,
    }
    return AdapterFile(metadata, adapter, head)


def _plausible(tensor: StoredTensor) -> bool:
    if tensor.values is not None:
        return bool(np.isfinite(tensor.values).all())
    return math.isfinite(tensor.mean) and 0 < tensor.std < math.inf


def write(file: AdapterFile, where: str) -> tuple[bytes, bytes]:
    """The .bin and the .yaml of an adapter file.

    Args:
        where: its path, for messages.

    Raises:
        UserError: the authors' format cannot hold it.
    """
    meta, stated = file.metadata, settings(file)
    fixed = {"quantizer": QUANTIZER, "backbone": BACKBONE, "normalization": NORMALIZATION}
    values = {name: stated[name] for name in READING}
    _check(values, where)
    for key, value in fixed.items():
        if meta[key] != value:
            raise UserError(f"{where}: {key} {meta[key]}: the authors' format has {value} alone")
    parts = (file.adapter, file.head)
    taken = reading(values, sum(tensor.entry.nbytes for part in parts for tensor in part), where)
    if tuple([tensor.entry for tensor in part] for part in parts) != taken.layouts:
        raise UserError(f"{where}: its tensors are not those of {taken} on ViT-B/16")
    beside = {key: stated[name] for key, name in _KEYS.items() if name in stated}
    beside |= {"backbone": _THEIR_BACKBONE, "method": taken.adapter + _HEADS[taken.head]}
    if meta["task"]:
        beside["dataset"] = meta["task"].removeprefix("vtab_")
    return b"".join(tensor.to_bytes() for part in parts for tensor in part), yaml.safe_dump(beside).encode()


def settings(file: AdapterFile) -> dict[str, Any]:
    """What an adapter file states of what a .bin does not: the fields of a reading, scale and task."""
    meta = file.metadata
    numbers = {"hidden": int(meta["hidden"]), "bits": int(meta["bits"]), "scale": float(meta["scale"])}
    names = {name: meta[name] for name in ("adapter", "head", "task")}
    return numbers | names | {"classes": file.head[0].entry.shape[0]}


def read_settings(text: bytes, where: str) -> dict[str, Any]:
    """The settings that a .yaml states, under our names; `dataset` as the authors call it.

    Raises:
        UserError: no YAML, or a value that cannot be.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no settings; the authors' .yaml is lines of KEY: VALUE")
    if content.get("backbone", _THEIR_BACKBONE) != _THEIR_BACKBONE:
        raise UserError(f"{where}: backbone {content['backbone']!r}; only {_THEIR_BACKBONE} can be converted")
    found = {_KEYS[key]: _checked(key, value, where) for key, value in content.items() if key in _KEYS}
    if "method" in content:
        methods = {name + end: (name, head) for name in _MATRICES for head, end in _HEADS.items()}
        method = str(content["method"])
        if method not in methods:
            raise UserError(f"{where}: unknown method {method!r}: {did_you_mean(method, methods)}")
        found["adapter"], found["head"] = methods[method]
    return found


def _checked(key: str, value: object, where: str) -> object:
    kinds = {"dataset": ((str,), "a name"), "scale": ((int, float), "a number")}
    kind, expected = kinds.get(key, ((int,), "a whole number"))
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"{where}: {key} is {value!r}, it must be {expected}")
    return value


def _or(values: Iterable[object]) -> str:
    return " or ".join(map(str, values))
