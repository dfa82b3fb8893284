"""Settings of runs as reports use them; every fact about a setting that a report needs stands here."""

from __future__ import annotations

TABLE_SETTINGS = [
    "suite",
    "shots",
    "protocol",
    "rungs",
    "precision",
    "normalization",
    "epochs",
    "recipe",
    "altered",
]
"""Runs that differ in one of these never share a table."""
SEPARATED = {
    "protocol": "protocols",
    "precision": "precisions",
    "normalization": "pixel normalizations",
    "epochs": "lengths of training",
}
"""Settings of tables that a reader could overlook, with the name that a warning gives to several values."""
ROW_SETTINGS = [
    "backbone",
    "adapter",
    "settings",
    "hidden",
    "quantizer",
    "bits",
    "head",
    "rate_weight",
    "packing",
    "statistics",
]
"""Settings that tell the rows of a table apart, in the order of their columns."""
TASK_SETTINGS = ["scale", "lr"]
"""Settings that may differ by task within a row; they tell rows apart where a task has several values."""
REPETITIONS = {"seed": "seeds", "split_seed": "draws of the training images"}
"""Columns in which the repetitions of one cell differ, with the name of several values."""
WIDTH_SETTINGS = ("bits", "quantizer", "scale", "lr", "rate_weight", "packing", "statistics")
"""Settings in which a row may differ from the row with the most bits that it is compared with."""
PREFERRED = ("scale", "lr", "rate_weight", "packing", "statistics")
"""Of several rows with the most bits, the one that agrees in most of these, in this order, is compared."""
ALWAYS_SHOWN = {"bits", "hidden"}
"""Settings that always have a column; all others have one only where rows differ in them."""
OFF_BY_DEFAULT = ("settings", "rate_weight")
"""Settings that have a column as soon as one row uses them; the cell of a row that does not is blank."""
USUAL = {"head": "linear", "quantizer": "l1_median", "packing": "coded", "statistics": "exact"}
"""Settings that the title of a table names where all its rows have the same value and it is not this one."""
WITHOUT_ADAPTER = ("adapter", "head", "backbone", "settings")
"""Settings that a method without adapter weights has, too."""
NAMED_BY_VALUE = ("settings", "backbone", "quantizer")
"""Settings whose value alone stands in the label of a row: `minmax`, but `packing raw`."""
