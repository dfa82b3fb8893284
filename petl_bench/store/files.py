"""Files of a store: the names of those of a run, JSON files, and numbered folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petl_bench.files import RECORD_LIMIT, content

ADAPTER = "adapter.safetensors"
ROW = "row.json"
SPEC = "spec.json"
ERROR = "error.json"
SEARCH = "search.json"
PREDICTIONS = "predictions.bin"
LOG = "run.log"
EVENTS = "events.out.tfevents."
"""Beginning of the names of TensorBoard's files; they lie in a folder with the readable name of the run."""
CHECKPOINTS = "checkpoints"
RUN_ID = re.compile("[0-9a-f]{12}")
FILES = (ADAPTER, ROW, SPEC, ERROR, SEARCH, PREDICTIONS)


def to_json(values: Mapping[str, Any]) -> bytes:
    """Return an object as the content of a JSON file.

    Raises:
        ValueError: a number is not finite.
    """
    return (json.dumps(values, indent=1, sort_keys=False, allow_nan=False) + "\n").encode()


def from_json(path: str | Path) -> Any:
    """Return the value that a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError, RecursionError: it does not hold JSON, or is a pipe, a device or too large.
    """
    return json.loads(content(path, RECORD_LIMIT))


def new_folder(wanted: Path) -> Path:
    """Create a folder with the wanted name or, if it is taken, the first free of `NAME.2`, `NAME.3`, ..."""
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}.{number}")
        else:
            return folder
