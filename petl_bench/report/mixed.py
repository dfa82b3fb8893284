"""In what the rows of a table differ though they had better not: where they come from, and by what rates."""

from __future__ import annotations

import pandas as pd

PROVENANCE = {
    "version": "petl-bench versions",
    "git_revision": "git revisions",
    "torch_version": "torch versions",
    "pillow_version": "pillow versions",
    "device": "devices",
    "backbone_sha256": "weights of one backbone",
    "data_fingerprint": "versions of one task's data",
}
"""Columns in which the rows of a table should agree, and how a warning calls them."""
WITHIN = {"backbone_sha256": ["backbone"], "data_fingerprint": ["task", "shots", "split_seed"]}
"""Columns that should agree among rows of one backbone or one task only."""


def mixed(frame: pd.DataFrame, rates: bool) -> list[str]:
    """What the rows of one table do not have in common, a sentence each.

    Args:
        rates: whether learning rates are looked at, too; where a protocol chooses them they are to differ.
    """
    notes: list[str] = []
    for column, what in PROVENANCE.items():
        within = frame.groupby(WITHIN[column]) if column in WITHIN else frame.groupby(lambda _: 0)
        count = int(within[column].nunique().max())
        if count > 1:
            notes.append(f"rows come from {count} different {what}")
    if frame["git_dirty"].any():
        notes.append(f"{int(frame['git_dirty'].sum())} rows come from a checkout with uncommitted changes")
    if rates and frame["lr"].nunique() > 1:
        low, high = frame["lr"].min(), frame["lr"].max()
        notes.append(f"learning rates differ: {low:g} to {high:g}")
    return notes
