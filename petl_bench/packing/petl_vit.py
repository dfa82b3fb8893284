"""Conversion of the authors' released files: a .bin without header, and the .yaml written beside it.

The .bin holds the tensors of ViT-B/16 in module order, the head last. A matrix is stored as its packed codes,
float32 mean and float32 std, a float32 head as its weight and then its bias. The .yaml states everything
else: how the bytes are laid out, and the scale.

Their repository keeps folders models_bin/METHOD and configs/METHOD side by side, for .bin and .yaml files of
the same name; `settings_paths` looks there too.

Source: the released code of arXiv 2307.16867 (JieShibo/PETL-ViT, folder binary_adapter).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from petl_bench.errors import UserError, counted, did_you_mean
from petl_bench.files import decoded, parse_yaml
from petl_bench.packing.file import AdapterFile
from petl_bench.packing.metadata import stated_classes, stated_facts
from petl_bench.packing.section import SectionFormat
from petl_bench.packing.tensors import Entry, StoredTensor
from petl_bench.types import FLOAT_BITS

BACKBONE, NORMALIZATION = "vit_b16_in21k", "none"
"""Settings with which every released file was trained, by their names in this package."""
QUANTIZERS = {1: "l1_median", 2: "l1_median", 4: "l1_median", 8: "l1_median_500"}
"""Quantizer of the released code at each of its bit-widths, those whose codes never cross a byte. Up to 4
bits its codebook, `l1_median_500`, is `l1_median`."""
_THEIR_BACKBONE = "vit_base_patch16_224_in21k"
_DIM, _BLOCKS = 768, 12
_MATRICES = {"adaptformer": ("down", "up"), "lora": ("q.down", "q.up", "v.down", "v.up")}
_HEADS = {"linear": "", "binary": "-bihead"}
"""Heads, and the suffixes that stand for them in the authors' names of methods."""
_KEYS = {"dim": "hidden", "bit": "bits", "num_class": "classes", "scale": "scale", "dataset": "dataset"}
"""Keys of the .yaml that hold one setting each, and the names of these settings in this package."""
_SHOWN = 4
"""Maximum number of layouts that a message lists."""


@dataclass(frozen=True)
class BinLayout:
    """Layout of the bytes of a .bin, which does not state it itself.

    Attributes:
        adapter: adaptformer or lora.
        hidden: hidden (rank).
        bits: bits per weight of the adapter.
        head: linear or binary.
        classes: number of classes.
    """

    adapter: str
    hidden: int
    bits: int
    head: str
    classes: int

    def block(self, index: int) -> list[Entry]:
        """Return the matrices of one block: `down` (hidden, 768) and `up` (768, hidden)."""
        shapes = {"down": (self.hidden, _DIM), "up": (_DIM, self.hidden)}
        names = _MATRICES[self.adapter]
        return [Entry(f"{index}.{name}", shapes[name.rpartition(".")[2]], self.bits) for name in names]

    @property
    def entries(self) -> tuple[list[Entry], list[Entry]]:
        """The stored tensors of the adapter and of the head."""
        linear = self.head == "linear"
        head = [Entry("weight", (self.classes, _DIM), FLOAT_BITS if linear else 1)]
        if linear:
            head.append(Entry("bias", (self.classes,), FLOAT_BITS))
        return [entry for index in range(_BLOCKS) for entry in self.block(index)], head

    @property
    def nbytes(self) -> int:
        """Bytes of the .bin.

        The adapter takes (768 * hidden * bits / 8 + 8) bytes for each of 24 (AdaptFormer) or 48 (LoRA)
        matrices, a linear head 4 * 769 * classes bytes, a binary head 96 * classes + 8.
        """
        head = 4 * (_DIM + 1) * self.classes if self.head == "linear" else _DIM // 8 * self.classes + 8
        return _BLOCKS * sum(entry.nbytes for entry in self.block(0)) + head

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


LAYOUT_FIELDS = tuple(field.name for field in fields(BinLayout))


def bin_layout(values: Mapping[str, Any], size: int, where: str) -> BinLayout:
    """Return the layout of a .bin with given settings.

    Args:
        values: values of the fields of BinLayout; `head` may be left out, since the size determines it.
        size: bytes of the .bin.
        where: path of the file, for messages.

    Raises:
        UserError: a value that the format does not support, or settings that give another size.
    """
    _check(values, where)
    layouts = [BinLayout(**{"head": head, **values}) for head in _HEADS]
    fitting = [layout for layout in layouts if layout.nbytes == size]
    if not fitting:
        sizes = _or(dict.fromkeys(f"{layout.nbytes} ({layout.head} head)" for layout in layouts))
        given = ", ".join(f"{name} {value}" for name, value in values.items())
        raise UserError(f"{where}: {size} bytes, but {given} make {sizes}; {_one_change(size, values)}")
    return fitting[0]


def _check(values: Mapping[str, Any], where: str) -> None:
    for name, known in (("adapter", _MATRICES), ("head", _HEADS)):
        if name in values and values[name] not in known:
            raise UserError(f"{where}: {name} {values[name]}: the authors' format has {_or(known)} alone")
    if values["bits"] == FLOAT_BITS:
        raise UserError(f"{where}: bits 32: the authors' format drops 32-bit adapters and keeps their head")
    if values["bits"] not in QUANTIZERS:
        raise UserError(f"{where}: bits {values['bits']}: the authors' format has {_or(QUANTIZERS)} alone")
    for name in ("hidden", "classes"):
        if values[name] < 1:
            raise UserError(f"{where}: {name} {values[name]} is out of range: it must be 1 or more")


def _one_change(size: int, values: Mapping[str, Any]) -> str:
    """Return a clause that names the single values whose change would make the settings fit the size."""
    changes = [
        {name: getattr(other, name) for name in values if getattr(other, name) != values[name]}
        for other in _candidates(size)
    ]
    single = [f"{name} {value}" for change in changes if len(change) == 1 for name, value in change.items()]
    return f"it would fit {_or(single)}" if single else "no one other value would fit: is the file truncated?"


def _candidates(size: int) -> Iterator[BinLayout]:
    """Yield all layouts of a .bin of `size` bytes with hidden up to 768."""
    for adapter in _MATRICES:
        for bits in QUANTIZERS:
            for hidden in range(1, _DIM + 1):
                rest = size - BinLayout(adapter, hidden, bits, "linear", 1).nbytes + 4 * (_DIM + 1)
                if rest <= 0:
                    break
                for head, each, fixed in (("linear", 4 * (_DIM + 1), 0), ("binary", _DIM // 8, 8)):
                    classes, left = divmod(rest - fixed, each)
                    if classes > 0 and left == 0:
                        yield BinLayout(adapter, hidden, bits, head, classes)


def describe_fits(size: int, known: Mapping[str, object]) -> str:
    """Return a clause that lists the layouts of a .bin of `size` bytes with the known values of fields."""
    fitting = [layout for layout in _candidates(size) if known.items() <= asdict(layout).items()]
    if not fitting:
        return f"its {size} bytes fit none: is the file truncated?"
    more = f"; and {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
    return f"its {size} bytes fit {'; '.join(map(str, fitting[:_SHOWN]))}{more}"


def read(data: bytes, layout: BinLayout, scale: float, task: str, where: str) -> AdapterFile:
    """Return an adapter file with the tensors of a .bin; it does not state the checksum of its backbone.

    Args:
        data: the whole .bin, of `layout.nbytes` bytes.
        layout: layout of the .bin.
        scale: scale of the adapter.
        task: name of the task in this package; empty where unknown.
        where: path of the .bin, for messages.

    Raises:
        UserError: numbers that cannot be the result of a training.
    """
    adapter_entries, head_entries = layout.entries
    section = SectionFormat("adapter", None, 4)
    end = sum(entry.nbytes for entry in adapter_entries)
    adapter, _ = section.read(data[:end], adapter_entries, coded=False)
    head, _ = section.read(data[end:], head_entries, coded=False)
    for tensor in [*adapter, *head]:
        if not _plausible(tensor):
            raise UserError(
                f"{where}: tensor {tensor.entry.name} holds no trained values read as {layout}: "
                "the file is damaged, or other options are right"
            )
    metadata = {
        "adapter": layout.adapter,
        "hidden": str(layout.hidden),
        "bits": str(layout.bits),
        "quantizer": QUANTIZERS[layout.bits],
        "scale": repr(scale),
        "head": layout.head,
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
    """Return the bytes of the .bin and of the .yaml for an adapter file.

    Args:
        file: the adapter file.
        where: path of the adapter file, for messages.

    Raises:
        UserError: the authors' format does not support the file.
    """
    meta, stated = file.metadata, settings(file, where)
    values = {name: stated[name] for name in LAYOUT_FIELDS}
    _check(values, where)
    bits = values["bits"]
    for key, value in {"backbone": BACKBONE, "normalization": NORMALIZATION}.items():
        if meta[key] != value:
            raise UserError(f"{where}: {key} {meta[key]}: the authors' format has {value} alone")
    if meta["quantizer"] != QUANTIZERS[bits]:
        raise UserError(
            f"{where}: quantizer {meta['quantizer']}: at {counted(bits, 'bit')} the authors' format has "
            f"{QUANTIZERS[bits]} alone, and the same codes would stand for other weights"
        )
    components = (file.adapter, file.head)
    size = sum(tensor.entry.nbytes for tensors in components for tensor in tensors)
    layout = bin_layout(values, size, where)
    if tuple([tensor.entry for tensor in tensors] for tensors in components) != layout.entries:
        raise UserError(f"{where}: its tensors are not those of {layout} on ViT-B/16")
    beside = {key: stated[name] for key, name in _KEYS.items() if name in stated}
    beside |= {"backbone": _THEIR_BACKBONE, "method": layout.adapter + _HEADS[layout.head]}
    if meta["task"]:
        beside["dataset"] = meta["task"].removeprefix("vtab_")
    data = b"".join(tensor.to_bytes() for tensors in components for tensor in tensors)
    return data, yaml.safe_dump(beside).encode()


def settings(file: AdapterFile, where: str) -> dict[str, Any]:
    """Return the settings of an adapter file that a .bin does not state, scale and task included.

    Raises:
        UserError: the file does not state one, or states an impossible value.
    """
    facts = stated_facts(file, where)
    kept = {name: facts[name] for name in ("hidden", "bits", "scale", "adapter", "head", "task")}
    return kept | {"classes": stated_classes(file, where)}


def settings_paths(path: Path) -> tuple[Path, Path]:
    """Return where the .yaml of a .bin can be: beside it, or in configs/METHOD beside models_bin/METHOD."""
    beside = path.with_suffix(".yaml")
    method = path.absolute().parent
    return beside, method.parent.parent / "configs" / method.name / beside.name


def read_settings(text: bytes, where: str) -> dict[str, Any]:
    """Return the settings that a .yaml states, by their names in this package.

    Args:
        text: content of the .yaml.
        where: path of the .yaml, for messages.

    Returns:
        Settings; `dataset` is the authors' name of the task.

    Raises:
        UserError: the text is not valid YAML, or a value is invalid.
    """
    content = parse_yaml(decoded(text, where), where)
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no settings; the authors' .yaml has lines KEY: VALUE")
    if content.get("backbone", _THEIR_BACKBONE) != _THEIR_BACKBONE:
        raise UserError(f"{where}: backbone {content['backbone']!r}; only {_THEIR_BACKBONE} can be converted")
    settings = {_KEYS[key]: _checked(key, value, where) for key, value in content.items() if key in _KEYS}
    if "method" in content:
        methods = {name + end: (name, head) for name in _MATRICES for head, end in _HEADS.items()}
        method = str(content["method"])
        if method not in methods:
            raise UserError(f"{where}: unknown method {method!r}: {did_you_mean(method, methods)}")
        settings["adapter"], settings["head"] = methods[method]
    return settings


def _checked(key: str, value: object, where: str) -> object:
    kinds = {"dataset": ((str,), "a name"), "scale": ((int, float), "a number")}
    kind, expected = kinds.get(key, ((int,), "a whole number"))
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"{where}: {key} is {value!r}, it must be {expected}")
    return value


def _or(values: Iterable[object]) -> str:
    return " or ".join(map(str, values))
