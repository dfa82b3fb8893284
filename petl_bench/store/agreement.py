"""Agreement of a row with the other files of its run, as far as it is cheap to check: every reader does.

The spec must have the run_id and the columns of the row, and the adapter file its size. An edited accuracy
is shown by the row's digest (petl_bench.types.digest_of) and, where an old row has none, by being no number
of test images. None of this is a signature: somebody who computes digests or forges all files alike is not
found. `petl-bench store check` compares more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl_bench.store.files import to_json
from petl_bench.types import (
    OF_PARTS,
    ResultRow,
    RunSettings,
    RunSpec,
    declarations,
    digest_of,
    named,
    row_from_dict,
    row_to_dict,
    spec_from_dict,
    spec_to_dict,
    stored_id,
)


def with_digests(row: ResultRow, spec: RunSpec) -> ResultRow:
    """Return a row with the digests of the spec.json beside it and of its own columns."""
    own = replace(row, spec_digest=short_digest(to_json(spec_to_dict(spec))))
    return replace(own, digest=digest_of(row_to_dict(own)))


def short_digest(content: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()[:16]


def checked(values: Any, spec: bytes | None) -> ResultRow:
    """Return the row of a JSON object; columns that an old row lacks are taken from its spec.

    A row with a digest knows the spec that it was written with; otherwise run_id and columns are compared.

    Args:
        values: content of row.json.
        spec: content of spec.json; None: it is missing, as in some old runs.

    Raises:
        OtherVersionError, TypeError, ValueError, KeyError: it is no row, or contradicts itself or the spec.
    """
    row = row_from_dict(completed(values, spec))
    wrong = flaw_of(row, values)
    if not wrong and row.digest:
        wrong = "" if spec is not None and short_digest(spec) == row.spec_digest else CHANGED
    elif not wrong and spec is not None:
        stored = json.loads(spec)
        wrong = misfits(row, spec_values(stored, row))
        wrong = wrong and f"{wrong} by its spec.json"
        if not wrong and not named(stored, row.backbone_sha256, row.run_id):
            wrong = f"its spec.json is that of run {stored_id(stored, row.backbone_sha256)}"
    if wrong:
        raise ValueError(wrong)
    return row


def flaw_of(row: ResultRow, values: Mapping[str, Any]) -> str:
    """Describe how a row contradicts itself: accuracies, bytes or digest; empty where it does not.

    Args:
        row: the row.
        values: content of its row.json.
    """
    if not row.digest and (row.scale_from or row.lr_from):
        return "it has no digest, as every row has that states where its scale and learning rate come from"
    for name, value in (("acc", row.acc), ("acc_best_peek", row.acc_best_peek or 0.0)):
        right = value * row.n_test
        if abs(right - round(right)) > 1e-6 * max(row.n_test, 1):
            return f"{name} is {value}, which is no fraction of {row.n_test} images"
    if row.bytes_adapter + row.bytes_head + row.bytes_overhead != row.bytes_file:
        parts = f"{row.bytes_adapter} + {row.bytes_head} + {row.bytes_overhead}"
        return f"bytes_file is {row.bytes_file}, its parts are {parts}"
    if row.digest and row.digest != digest_of(values):
        return "it was changed after it was written: its digest is that of other values"
    return ""


CHANGED = "its spec.json is missing, or was changed after the row was written"


def completed(values: Any, spec: bytes | None) -> Any:
    """Return a row's values with the columns that an old row lacks, as its spec has them."""
    if spec is None or not isinstance(values, dict) or values.get("digest"):
        return values
    lacking = [name for name in ("image_size", "searched") if values.get(name) is None]
    if not lacking:
        return values
    stored = json.loads(spec)
    sealed = stored["protocol"]["name"] == "sealed"
    known = {
        "image_size": stored["backbone"]["image_size"],
        "searched": spec_from_dict(stored).searched if sealed and "searched" in lacking else "",
    }
    return values | {name: known[name] for name in lacking}


def misfits(row: ResultRow, expected: Mapping[str, object]) -> str:
    """Describe the columns of a row that differ from expected values, as `seed is 1, but 0`."""
    return "; ".join(
        f"{name} is {getattr(row, name)!r}, but {value!r}"
        for name, value in expected.items()
        if getattr(row, name) != value
    )


def spec_values(spec: Mapping[str, Any], row: ResultRow) -> dict[str, object]:
    """Return the columns that a row must have in common with a stored spec of any time.

    Values that the protocol chose are expected to be among its candidates, and settings that the spec is too
    old for are left out.
    """
    columns = {name: spec[name] for name in declarations(RunSettings) if name in spec}
    columns |= {name: spec[part][key] for name, (part, key) in OF_PARTS.items() if key in spec[part]}
    backbone, protocol = spec["backbone"], spec["protocol"]
    columns["backbone"] = backbone.get("label") or backbone["name"]
    columns["rungs"] = " ".join(f"{share:g}" for share in protocol.get("rungs", ()))
    if row.image_size is not None:
        columns["image_size"] = backbone["image_size"]
    if columns["scale"] is None and row.scale in protocol["scales"]:
        columns["scale"] = row.scale
    if row.lr is None or row.lr in protocol.get("lrs", ()):
        columns["lr"] = row.lr
    return columns
