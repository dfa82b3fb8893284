"""Check that the plug-ins with which something was made are in use."""

from __future__ import annotations

from petl_bench.errors import UserError
from petl_bench.plugins.active import active
from petl_bench.plugins.folders import VARIABLE


def missing(labels: str) -> str:
    """Return which of the plug-ins with which something was made is not in use; empty if all are.

    Args:
        labels: their names, each with its version, separated by commas; empty: none.
    """
    known = {plugin.name for plugin in active()}
    for label in filter(None, labels.split(", ")):
        if label.split(" ")[0] not in known:
            return (
                f"was made with plug-in {label}, which is not in use: name its folder by --config-dir or "
                f"{VARIABLE}, or install it"
            )
    return ""


def require(labels: str, where: str) -> None:
    """Check that the plug-ins with which something was made are in use.

    Args:
        labels: see `missing`.
        where: what was made with them, for messages.

    Raises:
        UserError: one is missing.
    """
    if why := missing(labels):
        raise UserError(f"{where}: {why}")
