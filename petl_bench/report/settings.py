"""Settings of runs as reports use them; every fact about a setting that a report needs stands here."""

from __future__ import annotations

from petl_bench.types import Column, RunSettings, declarations

_DECLARED = declarations(RunSettings)


def _with(column: Column) -> list[str]:
    return [name for name, known in _DECLARED.items() if known.column == column]


TABLE_SETTINGS = [
    *("suite", "shots", "protocol", "rungs"),
    *_with("table"),
    *("normalization", "epochs", "recipe", "altered"),
]
"""Runs that differ in one of these never share a table."""
SEPARATED = {
    "protocol": "protocols",
    "precision": "precisions",
    "normalization": "pixel normalizations",
    "epochs": "lengths of training",
}
"""Settings of tables that a reader could overlook, with the name that a warning gives to several values."""
ROW_SETTINGS = ["backbone", "image_size", "adapter", "settings", *_with("row"), "searched"]
"""Settings that tell the rows of a table apart, in the order of their columns."""
TASK_SETTINGS = [*_with("task"), "lr"]
"""Settings that may differ by task within a row; they tell rows apart where a task has several values."""
CHOSEN = {
    "scale": "scale",
    "lr": "learning rate",
    "searched": "values searched",
    "rungs": "rungs",
    "epochs": "epochs",
    "normalization": "pixel normalization",
    "recipe": "recipe",
}
"""Settings that one could choose by looking at test, with their names; see petl_bench.report.variants."""
REPETITIONS = {"seed": "seeds", "split_seed": "draws of the training images"}
"""Columns in which the repetitions of one cell differ, with the name of several values."""
SOURCES = {f"source_{part}": part for part in ("adapter", "quantizer", "head")}
"""Digests of source code that tell rows apart where they differ, with the part that they are of."""
WIDTH_SETTINGS = (
    "lr",
    "source_quantizer",
    *(name for name, known in _DECLARED.items() if known.follows_bits),
)
"""Settings in which a row may differ from the row with the most bits that it is compared with."""
PREFERRED = (
    *TASK_SETTINGS,
    *(name for name in _with("row") if name in WIDTH_SETTINGS and name not in ("bits", "quantizer")),
)
"""Of several rows with the most bits, the one that agrees in most of these, in this order, is compared."""
ALWAYS_SHOWN = {"bits", "hidden"}
"""Settings that always have a column; all others have one only where rows differ in them."""
OFF_BY_DEFAULT = ("settings", *(name for name in _with("row") if _DECLARED[name].usual == 0))
"""Settings that have a column as soon as one row uses them; the cell of a row that does not is blank."""
USUAL = {
    name: _DECLARED[name].usual
    for name in dict.fromkeys(["head", *_with("row")])
    if _DECLARED[name].usual is not None and name not in OFF_BY_DEFAULT
}
"""Settings that the title of a table names where all its rows have the same value and it is not this one."""
WITHOUT_ADAPTER = (
    *(
        "adapter",
        "head",
        "backbone",
        "image_size",
        "settings",
        "searched",
        "float_bits",
        "statistics",
        "compress",
        "kept",
        "strength",
        "source_adapter",
        "source_head",
    ),
)
"""Settings that a method without adapter weights has, too."""
NAMED_BY_VALUE = ("settings", "backbone", "quantizer")
"""Settings whose value alone stands in the label of a row: `minmax`, but `packing raw`."""
