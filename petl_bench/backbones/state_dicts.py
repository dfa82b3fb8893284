"""Search for the state dict of a model in a weights file, under any entries and prefixes of names."""

from __future__ import annotations

import argparse
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from petl_bench.errors import UserError, counted

_DEPTH = 4
"""Maximum depth of nested dictionaries in a file, and of parts of a prefix, that are searched."""
_PREFERRED = ("ema", "teacher", "target")
"""Parts of places whose tensors are taken before others: averages of a training's weights."""
_LAST = ("student", "momentum", "k", "predictor", "decoder")


@dataclass(frozen=True)
class StateDict:
    """Tensors of a file that may be the state dict of a model.

    Attributes:
        place: entries of the file and prefix of the names, for example `state_dict.module.`; empty: the whole
            file.
        tensors: tensors by name, without the prefix.
    """

    place: str
    tensors: dict[str, Tensor]


def read(path: Path) -> object:
    """Return the content of a file of tensors: a dictionary, possibly of dictionaries.

    Pickled objects other than tensors and plain containers are not loaded, because they could run code.

    Raises:
        Exception: whatever the reader raises on a damaged or foreign file.
    """
    if _is_safetensors(path):
        return load_file(path, device="cpu")
    # Training scripts keep their command line beside the weights. Sparse tensors, of which torch warns, are
    # refused later.
    safe = torch.serialization.safe_globals([argparse.Namespace])
    with (
        safe,
        warnings.catch_warnings(action="ignore"),
        path.open("rb") as file,
    ):  # of a path torch asks the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is one of safetensors by its content: the length of a header, and its JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def refuse_text(path: Path) -> None:
    """Refuse what a download has left in place of weights.

    Raises:
        UserError: the file is empty, a web page or a pointer to another file.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"backbone weights {path}: an empty file: the download or the copy has ended early")
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"backbone weights {path}: a web page, not weights: the download led to a page, perhaps because "
            "it needs a login or an agreement; download the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            f"backbone weights {path}: a pointer of Git LFS, not weights: `git lfs pull` fetches the file"
        )


def candidates(content: object, least: int) -> list[StateDict]:
    """Return the parts of a file that may be the state dict of a model, the preferred ones first.

    Args:
        content: content of the file, as `read` returns it.
        least: least number of tensors under a prefix for which the prefix is worth trying.
    """
    found = []
    for entries, tensors in _dictionaries(content, ()):
        for prefix in _prefixes(tensors, least):
            stripped = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            found.append(StateDict(".".join([*entries, prefix]), stripped))
    return sorted(found, key=lambda candidate: (_rank(candidate.place), len(candidate.place)))


def _dictionaries(
    content: object, entries: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if not isinstance(content, Mapping):
        return
    tensors = {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield entries, tensors
    if len(entries) < _DEPTH:
        for key, value in content.items():
            yield from _dictionaries(value, (*entries, str(key)))


def _prefixes(names: Mapping[str, Tensor], least: int) -> list[str]:
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(".".join(parts[:end]) + "." for end in range(1, min(len(parts), _DEPTH + 1)))
    return ["", *(prefix for prefix, count in counts.items() if count >= least)]


def _rank(place: str) -> int:
    words = set(re.split(r"[._]", place))
    return 0 if words & set(_PREFERRED) else 2 if words & set(_LAST) else 1


def refuse_numbers(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse floating-point numbers that are not finite, or not in float32.

    Raises:
        UserError: a tensor has such numbers.
    """
    largest = torch.finfo(torch.float32).max
    numbers = {name: value for name, value in state.items() if value.is_floating_point()}
    bad = [name for name, value in numbers.items() if not value.isfinite().all()]
    if bad:
        raise UserError(
            f"backbone weights {path}: {len(bad)} of {counted(len(state), 'tensor')} hold NaN or infinity "
            f"{bad[:3]}; the training that wrote them has diverged, or the file is damaged"
        )
    # Narrower types have no such numbers.
    wide = {name: value for name, value in numbers.items() if value.dtype is torch.float64 and value.numel()}
    bad = [name for name, value in wide.items() if value.abs().max() > largest]
    if bad:
        raise UserError(
            f"backbone weights {path}: {len(bad)} of {counted(len(state), 'tensor')} hold numbers beyond the "
            f"range of float32, {largest:.2g}, {bad[:3]}; no model computes with such weights"
        )
