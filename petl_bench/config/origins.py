"""Origins of the scale and the learning rate of planned runs: an override, a file or a search."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import cache

from petl_bench.config.compose import flat_keys
from petl_bench.config.files import file_of, group_config
from petl_bench.errors import UserError
from petl_bench.files import SETTINGS_LIMIT, read_bytes
from petl_bench.types import COMMAND_LINE, Origin

SEARCH, METHOD, LEARNED = "search on val", "method", "learned"
"""Origins of values that no setting of the configuration states."""
CHOOSING = ("protocol", "train", "tuned")
"""Groups whose files may state a scale or a learning rate, besides that of the sweep."""
DIGITS = 12
"""Hexadecimal digits of the SHA-256 of a file that an origin states."""


class Origins:
    """Origins of the values of one plan.

    Args:
        given: keys of the overrides that the user gave.
        axes: keys of all overrides, those of the sweep included.
        sweep: name of the sweep.
    """

    def __init__(self, given: Collection[str], axes: Collection[str], sweep: str) -> None:
        own = group_config("sweep", sweep)
        self.given, self.by_sweep, self.sweep = {*given}, {*axes, *flat_keys(own)}, sweep
        self.stamped = cache(_stamped)  # a file that is edited is read again by the next plan

    def states(self, key: str) -> bool:
        """Return whether the value of a setting comes from the file of the sweep."""
        return key in self.by_sweep and key not in self.given

    def origin(self, keys: Origin, options_of: Mapping[str, str]) -> Origin:
        """Return where the scale and the learning rate of a run come from.

        Args:
            keys: for each of them the key that decided it, such as `tuned.tables`, or one of SEARCH, METHOD
                and LEARNED.
            options_of: chosen option of the groups CHOOSING.
        """
        return Origin(self._source(keys.scale, options_of), self._source(keys.lr, options_of))

    def _source(self, key: str, options_of: Mapping[str, str]) -> str:
        if key in (SEARCH, METHOD, LEARNED):
            return key
        if key in self.given:
            return COMMAND_LINE
        group = key.partition(".")[0]
        return self.stamped(*(("sweep", self.sweep) if key in self.by_sweep else (group, options_of[group])))


def changed_file(origin: str) -> str:
    """Return the file of conf/ that an origin states, if its content is another one here; else nothing.

    Args:
        origin: a value of the columns `scale_from` and `lr_from`.
    """
    where = origin.partition(" ")[0]
    _, *names = where.removesuffix(".yaml").split("/")
    if not where.startswith("conf/") or len(names) != 2:
        return ""
    try:
        return "" if _stamped(*names) == origin else where
    except UserError:  # there is no such file here
        return where


def _stamped(group: str, name: str) -> str:
    """Return the name of a file of conf/ with the beginning of its SHA-256."""
    where = f"conf/{group}/{name}.yaml"
    content = read_bytes(file_of(group, name), SETTINGS_LIMIT, where)
    return f"{where} {hashlib.sha256(content).hexdigest()[:DIGITS]}"
