"""Notes on how the runs behind a table differ although they should agree: provenance and learning rates."""

from __future__ import annotations

import pandas as pd

from petl_bench.errors import counted
from petl_bench.types import COMMAND_LINE

PROVENANCE = {
    "version": "petl-bench versions",
    "git_revision": "git revisions",
    "torch_version": "torch versions",
    "pillow_version": "pillow versions",
    "source_training": "versions of the training code",
    "device": "devices",
    "backbone_sha256": "weights of one backbone",
    "data_fingerprint": "versions of one task's data",
}
"""Columns in which the runs of a table should agree, with the name that a note gives to several values."""
WITHIN = {"backbone_sha256": ["backbone"], "data_fingerprint": ["task", "shots", "split_seed"]}
"""Columns that should agree only among runs of the same backbone, or of the same task."""

YOUNGER = {"source_training"}
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
        runs = frame[frame[column] != ""] if column in YOUNGER else frame
        within = runs.groupby(WITHIN[column]) if column in WITHIN else runs.groupby(lambda _: 0)
        if len(runs) and (count := int(within[column].nunique().max())) > 1:
            notes.append(f"runs come from {count} different {name}")
    if frame["git_dirty"].any():
        notes.append(f"{int(frame['git_dirty'].sum())} runs come from a checkout with uncommitted changes")
    for column, name in {"scale_from": "scale", "lr_from": "learning rate"}.items():
        if given := int((frame[column] == COMMAND_LINE).sum()):
            notes.append(
                f"the {name} of {given} of {counted(len(frame), 'run')} was given on the command line"
            )
    if rates and frame["lr"].nunique() > 1:
        low, high = frame["lr"].min(), frame["lr"].max()
        notes.append(f"learning rates differ: {low:g} to {high:g}")
    return notes
