"""Schemas of the objects that --json prints, as docs/json.md documents them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from petl_bench.types.row import COLUMNS

PAGE = Path(__file__).parent.parent / "docs" / "json.md"
KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
    "any": (object,),
}
Keys = dict[str, tuple[tuple[type, ...], bool]]
"""Key -> its types, and whether it can be missing."""


@cache
def schemas() -> dict[str, Keys]:
    """Return the documented keys of each schema."""
    found: dict[str, Keys] = {}
    for name, text in re.findall(
        r"^## (petl-bench/[\w-]+/\d+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
    ):
        keys: Keys = {}
        for named, kind, _ in re.findall(r"^\| ([`*].+?) \| (.*?) ?\| (.+) \|$", text, re.MULTILINE):
            if named.startswith("*columns of a row"):
                null = (type(None),) if "null" in named else ()
                keys |= {key: (held + null, "optional" in named) for key, held in COLUMNS.items()}
                continue
            words = kind.removesuffix(" (optional)")
            types = tuple(one for word in words.split(" or ") for one in KINDS[word])
            keys |= dict.fromkeys(re.findall(r"`(\w+)`", named), (types, words != kind))
        found[name] = keys
    return found


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return an object without its schema, after a comparison with the documentation of that."""
    schema, others = values["schema"], {key: value for key, value in values.items() if key != "schema"}
    keys = schemas()[schema]
    assert set(others) <= set(keys), (schema, set(others) - set(keys))
    missing = {key for key, (_, optional) in keys.items() if not optional} - set(others)
    assert not missing, (schema, missing)
    for key, value in others.items():
        types = keys[key][0]
        fine = isinstance(value, types) and (type(value) is not bool or {bool, object} & {*types})
        assert fine, (schema, key, value)
    return others
