"""What the commands share: the store option and ways to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

StoreOption = Annotated[Path, typer.Option("--store", help="Directory of runs.", show_default=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout and nothing else.")]
DEFAULT_STORE = Path("results")


def note(message: str) -> None:
    """Tell the user something that is not a result."""
    print(message, file=sys.stderr, flush=True)


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    print(json.dumps(values, allow_nan=False), flush=True)


def counted(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
