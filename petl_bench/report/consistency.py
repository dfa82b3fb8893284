"""Notes on how the runs behind a table differ although they should agree: provenance and learning rates."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from petl_bench.errors import counted
from petl_bench.types import COMMAND_LINE

PROVENANCE = {
    "version": "petl-bench versions",
    "git_revision": "git revisions",
    "torch_version": "torch versions",
    "timm_version": "timm versions",
    "pillow_version": "pillow versions",
    "source_training": "versions of the training code",
    "plugins": "versions of plug-ins",
    "device": "devices",
    "kernels": "kernels",
    "backbone_sha256": "weights of one backbone",
    "data_fingerprint": "versions of one task's data",
}
"""Columns in which the runs of a table should agree, with the name that a note gives to several values."""
WITHIN = {
    "backbone_sha256": ["backbone"],
    "data_fingerprint": ["task", "shots", "split_seed"],
    "plugins": ["task", "adapter", "quantizer", "head", "recipe_name", "backbone"],
}
"""Columns that should agree only among runs of the same backbone, of the same task, and so on."""

YOUNGER = {"source_training", "timm_version", "kernels"}
"""Columns that old rows lack; nothing is known about these."""


def inconsistencies(frame: pd.DataFrame, rates: bool) -> list[str]:
    """Describe in which respects the runs of one table differ.

    Args:
        frame: one finished run per row, with the columns of ResultRow.
        rates: include learning rates; they are expected to differ where a protocol chooses them.

    Returns:
        One sentence for each difference.
    """
    notes: list[str] = []
    for column, name in PROVENANCE.items():
        values = frame[column]
        count = values[values != ""].nunique() if column in YOUNGER else values.nunique()
        if count > 1 and column in WITHIN:
            count = int(frame.groupby(WITHIN[column])[column].nunique().max())
        if count > 1:
            notes.append(f"runs come from {count} different {name}")
    if dirty := int(frame["git_dirty"].sum()):
        come = "run comes" if dirty == 1 else "runs come"
        notes.append(f"{dirty} {come} from a checkout with uncommitted changes")
    for column, name in {"scale_from": "scale", "lr_from": "learning rate"}.items():
        if given := int((frame[column] == COMMAND_LINE).sum()):
            notes.append(
                f"the {name} of {given} of {counted(len(frame), 'run')} was given on the command line"
            )
    if rates and frame["lr"].nunique() > 1:
        notes.append(f"learning rates differ: {_in_words(frame['lr'])}{_by_method(frame)}")
    return notes


def _in_words(rates: pd.Series[float]) -> str:
    low, high = rates.min(), rates.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _by_method(frame: pd.DataFrame) -> str:
    """Return the learning rates of each method in brackets, where two or three sets of methods differ."""
    methods: dict[str, list[str]] = defaultdict(list)
    for adapter, rates in frame.groupby("adapter")["lr"]:
        methods[_in_words(rates)].append(str(adapter))
    if not 2 <= len(methods) <= 3:
        return ""
    return f" ({'; '.join(', '.join(names) + f': {rates}' for rates, names in methods.items())})"


def mixed_machines(runs: pd.DataFrame, row: str) -> list[str]:
    """Say which rows of a table mix runs of several processors, or of several kernels of one.

    Args:
        runs: the runs that the table shows.
        row: name of the column with the number of the row that shows a run.
    """
    known = runs.assign(kernels=runs["kernels"].where(runs["kernels"] != ""))
    if known[["device", "kernels"]].nunique().max() < 2:
        return []
    counts = known.groupby(row)[["device", "kernels"]].transform("nunique")
    mixed = runs[(counts > 1).any(axis=1)]
    if mixed.empty:
        return []
    pairs = sorted({*zip(mixed["device"], mixed["kernels"], strict=True)})
    machines = "; ".join(f"{device} ({kernels or 'kernels unknown'})" for device, kernels in pairs)
    return [
        f"rows of {', '.join(sorted({*mixed['adapter']}))} mix runs of several processors or kernels "
        f"({machines}): equal settings can give other accuracies there, below 32 bits above all, and the "
        "deviations of these rows include that"
    ]
