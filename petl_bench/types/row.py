"""The row of a finished run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, get_args, get_type_hints

from petl_bench.types.fields import check_keys
from petl_bench.types.run import RunSpec
from petl_bench.types.run_settings import RunSettings
from petl_bench.types.settings import completed_with_before, declarations


@dataclass(frozen=True, kw_only=True)
class ResultRow(RunSettings):
    """Row of one finished run: the columns of RunSettings and these, each typed and explained here alone.

    Columns with a default are younger than the first rows, which can still be read.
    """

    run_id: str
    suite: str
    task: str
    group: str
    backbone: str
    adapter: str
    scale: float  # the chosen one
    scale_from: str = ""  # where it comes from (petl_bench.types.Origin); empty: unknown
    settings: str = ""  # of the adapter, where they are not its defaults: "share=0"
    protocol: str
    rungs: str = ""  # protocol sealed: shares of the epochs where it halves its search: "0.25 0.5"
    image_size: int | None = None  # side of the backbone's input in pixels; None: an old row without its spec
    normalization: str
    epochs: int
    lr: float | None = None  # as chosen, where protocol sealed searches it; tuned, where conf/tuned has one
    lr_from: str = ""  # where it comes from, as scale_from
    searched: str | None = (
        None  # protocol sealed: "scale 0.1 1; lr 0.001 0.01"; None: an old row without its spec
    )
    recipe: str = ""  # short hash of the recipe, without a learning rate that was given beforehand
    recipe_name: str = ""  # file of conf/train, and what differs from it: "vtab with batch_size=32"
    compressed_from: str = ""  # run_id of the run at 32 bits that was compressed; empty: trained as stored
    chosen: str = ""  # compressed: what was chosen on val, "kept=0.1 strength=3"
    shots: int = 0  # training images per class of a few-shot set, else 0
    split_seed: int = 0  # number of the draw of the training images
    data_override: str = ""  # facts of the manifest that the user overrode; empty for the real benchmark
    status: str  # "done"
    acc: float  # fraction of test images classified correctly by the reloaded file
    predictions: str = ""  # short hash of the classes predicted for the test images; empty: an older row
    acc_val: float | None  # the winner's on val in its last trial, after training without val
    acc_best_peek: float | None  # best over test evaluations, protocol peek only
    n_train: int
    n_test: int
    bytes_adapter: int
    bytes_adapter_raw: int | None = None  # with codes as they are and float32 statistics
    bytes_head: int
    bytes_overhead: int
    bytes_file: int  # the three above summed = size on disk
    bits_per_weight: float | None  # 8 * bytes_adapter / adapter weights; None without an adapter
    params_trainable: int
    seconds_search: float = 0.0  # protocol sealed: training and scoring all candidates
    seconds_train: float
    seconds_eval: float
    images_per_second: float  # through the backbone in training, over seconds_train
    peak_memory_bytes: int
    device: str
    kernels: str = ""  # instruction set and threads of torch's kernels: "AVX2, 1 thread"
    data_fingerprint: str
    backbone_sha256: str
    version: str
    git_revision: str
    git_dirty: bool
    torch_version: str
    timm_version: str = ""
    pillow_version: str = ""  # decides the last bits of resized images
    source_adapter: str = ""  # digests of the code that made the row, by part; empty: not used, or an old row
    source_quantizer: str = ""
    source_head: str = ""
    source_training: str = ""  # of the code that all methods share
    source_compress: str = ""  # of the code that compresses
    plugins: str = ""  # that the run uses: name, version and digest of the source of each
    started_at: str  # UTC, ISO 8601
    finished_at: str
    spec_digest: str = ""  # of the bytes of spec.json
    digest: str = ""  # of all other columns, by which an edited row is noticed; empty: an old row


MOST = 2.0**63
"""Bound on all numbers of a row, where Parquet's whole numbers end."""


def row_from_dict(values: Mapping[str, Any]) -> ResultRow:
    """Return a row from its JSON object.

    Raises:
        OtherVersionError: keys are only missing, or only unknown.
        TypeError: both, or a value is of another type than its column.
        ValueError: a number is not finite or below 0, or an accuracy is no fraction.
    """
    check_keys(values, ResultRow, "columns")
    wrong, numbers, younger = _checked(tuple(values), tuple(map(type, values.values())))
    if wrong:
        kinds = " or ".join(kind.__name__ for kind in COLUMNS[wrong])
        raise TypeError(f"{wrong} is {values[wrong]!r}, it must be {kinds}")
    for name in numbers:
        if not 0 <= values[name] < MOST:
            raise ValueError(f"{name} is {values[name]}, it must be a number from 0 to {MOST:g}")
    for name in ("acc", "acc_val", "acc_best_peek"):
        if not 0 <= (values.get(name) or 0) <= 1:
            raise ValueError(f"{name} is {values[name]}, it must be a fraction from 0 to 1")
    row = object.__new__(ResultRow)  # the constructor of a frozen dataclass takes as long as all checks
    vars(row).update(younger, **values)
    return row


@cache
def _checked(names: tuple[str, ...], kinds: tuple[type, ...]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Check the types of the columns of a row.

    Most rows of a store have the same ones, so that this is computed a few times only.

    Returns:
        The first column whose type is not allowed, or an empty text; the columns that are numbers; and the
        values of columns that the row is too old for.
    """
    wrong, typed = "", list(zip(names, kinds, strict=True))
    for name, kind in typed:
        if not issubclass(kind, COLUMNS[name]) or (kind is bool) != (bool in COLUMNS[name]):
            wrong = wrong or name
    defaults = {held.name: held.default for held in fields(ResultRow) if held.default is not MISSING}
    younger = defaults | completed_with_before(ResultRow, dict.fromkeys(names))
    numbers = tuple(name for name, kind in typed if issubclass(kind, int | float))
    return wrong, numbers, {name: value for name, value in younger.items() if name not in names}


def digest_of(values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over all columns of a row but its digest.

    They are no signature: whoever changes a row can compute them anew. They show that somebody did not.
    """
    others = dict(values)
    others.pop("digest", None)
    return hashlib.sha256(_CANONICAL.encode(others).encode()).hexdigest()[:16]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


OF_PARTS = {
    "suite": ("task", "suite"),
    "task": ("task", "name"),
    "group": ("task", "group"),
    "adapter": ("adapter", "name"),
    "protocol": ("protocol", "name"),
    "normalization": ("train", "normalization"),
    "epochs": ("train", "epochs"),
    "lr": ("train", "lr"),
    "shots": ("task", "shots"),
    "split_seed": ("task", "split_seed"),
    "data_override": ("task", "override"),
    "data_fingerprint": ("task", "fingerprint"),
}
"""Columns of a row that repeat a setting of a part of its spec: the part and the setting."""


def spec_columns(spec: RunSpec) -> dict[str, object]:
    """Return the columns of a row that its spec determines, whatever the defaults of its adapter."""
    columns = {name: getattr(spec, name) for name in declarations(RunSettings)}
    columns |= {"backbone": spec.backbone.display_name, "rungs": spec.protocol.rungs_text}
    return columns | {name: getattr(getattr(spec, part), key) for name, (part, key) in OF_PARTS.items()}


def row_to_dict(row: ResultRow) -> dict[str, Any]:
    """Return a row as a JSON object, its columns in order."""
    return {name: getattr(row, name) for name in COLUMNS}


def _kinds(hint: Any) -> tuple[type, ...]:
    """Return the types that a column's values may have; a whole number is a float too."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return (*kinds, int) if float in kinds else kinds


_FIRST = """run_id suite task group backbone adapter hidden scale settings quantizer bits head protocol rungs
precision rate_weight packing statistics normalization seed"""
"""Columns of the settings as the first rows had them; younger settings come after them."""


def _columns() -> dict[str, tuple[type, ...]]:
    hints = get_type_hints(ResultRow)
    younger = [name for name in declarations(RunSettings) if name not in _FIRST.split()]
    return {name: _kinds(hints[name]) for name in dict.fromkeys([*_FIRST.split(), *younger, *hints])}


COLUMNS = _columns()
"""Types of a row's columns, by name, in order."""
