"""Comparison of an evaluation with the row of its run, which another device may have computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from petl_bench.errors import counted

if TYPE_CHECKING:
    from petl_bench.packing import Predictions

TOLERANCE = 0.01
"""Share of the test images whose predictions may differ where another device or other kernels computed a row:
they add in another order and round otherwise. A GPU does so by itself, with other batches too."""
GPUS = ("CUDA", "HIP")
"""First words of the kernels of GPUs."""


def threads_of(row: Mapping[str, Any]) -> int | None:
    """Return the number of CPU threads that computed a row, if it states it."""
    stated = re.search(r"(\d+) threads?\b", row["kernels"] or "")
    return int(stated[1]) if stated else None


def comparison(
    row: Mapping[str, Any], found: Predictions, kept: Predictions | None, here: Mapping[str, object]
) -> dict[str, Any]:
    """Compare an evaluation with the row of its run.

    Args:
        row: columns of the row.
        found: predictions of the evaluation.
        kept: predictions that the run has kept, of as many images; None: none.
        here: `device` and `kernels` of the evaluation, as in a row; rows of older versions state no kernels.

    Returns:
        `agrees`, `predictions_differ` (None without predictions), and `tolerance`, the number of images that
        may differ: 0 where device and kernels are the same, and no GPU's.
    """
    known = {name: value for name, value in here.items() if row[name]}
    same = all(row[name] == known[name] for name in known) and not str(here["kernels"]).startswith(GPUS)
    tolerance = 0 if same else int(TOLERANCE * found.images)
    differing = None if kept is None else kept.differing(found)
    if tolerance:
        changed = round(abs(row["acc"] - found.accuracy) * found.images)
        agrees = changed <= tolerance if differing is None else changed <= differing <= tolerance
    else:  # older rows state no hash
        agrees = row["acc"] == found.accuracy and row["predictions"] in ("", found.digest) and not differing
    return {"agrees": agrees, "predictions_differ": differing, "tolerance": tolerance}


def verdict(result: Mapping[str, Any]) -> str:
    """Return what the comparison of one evaluation with its row has shown, after the accuracy."""
    differing, tolerance = result["predictions_differ"], result["tolerance"]
    if result["agrees"] is None:
        return ""
    many = "" if differing is None else f", {differing} of {counted(result['n_test'], 'prediction')} differ"
    why = f", and up to {tolerance} may on a GPU, another device or by other kernels" if tolerance else ""
    if not result["agrees"]:
        return f" DISAGREES with row {result['acc_row']:.4f}{many}{why}"
    if result["acc"] == result["acc_row"] and not differing:
        return " = row"
    return f", row {result['acc_row']:.4f}{many}{why}"
