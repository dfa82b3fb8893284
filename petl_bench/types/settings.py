"""Declarations of settings: each setting is declared once, as a field of a dataclass, by `setting(...)`.

Derived from a declaration are the keys of the configuration with their defaults, the check of values before
anything runs, the part of a run's identity, the column of its row and its place in reports, plans, estimates
and TensorBoard, and what `petl-bench ls keys` prints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

from petl_bench.errors import UserError

UNSET: Any = object()
"""Marks a value that is not stated."""

Column = Literal["", "table", "row", "task", "repetition"]
"""Place of a setting's column in a report.

table       rows that differ in it never share a table
row         it tells the rows of a table apart
task        it may differ from task to task within a row
repetition  averages are taken over it
(empty)     no report shows it
"""

Use = Literal["always", "matrices", "adapter codes", "codes", "compression"]
"""Runs that have a use for a setting: all, those whose adapter has matrices, those with a quantized adapter,
those with a quantized part, those that are compressed in a way that it belongs to."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Declaration of one setting.

    Attributes:
        help: one sentence about the setting.
        default: the value unless one is chosen; UNSET where a file of conf/ states it.
        before: the value that a stored spec or row stands for if it lacks the setting, being older than it;
            UNSET for settings that every stored spec has.
        right: the allowed values in words.
        allows: whether a value that is not None is allowed.
        option: whether the value is the name of a file in conf/SETTING/.
        identity: whether the setting is part of a run's identity.
        quiet: whether the identity omits the setting at its `before` value, because it was introduced without
            a new protocol version.
        column: place of its column in reports.
        follows_bits: whether runs of two bit-widths that are compared may differ in it.
        usual: the value that reports do not mention; None: reports always mention it.
        use: which runs have a use for it; the others stand at `default`.
    """

    help: str
    default: Any = UNSET
    before: Any = UNSET
    right: str = ""
    allows: Callable[[Any], bool] = lambda value: True
    option: bool = False
    identity: bool = True
    quiet: bool = False
    column: Column = ""
    follows_bits: bool = False
    usual: Any = None
    use: Use = "always"


def setting(
    help: str,
    default: Any = UNSET,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
    right: str = "",
    value: Any = UNSET,
    **others: Any,
) -> Any:
    """Return a dataclass field that carries a `Setting`.

    Args:
        help: one sentence about the setting.
        default: see `Setting`; also the default of the field.
        least, above, most, below: bounds of numbers, the second and fourth excluded; numbers are finite.
        choices: the allowed values.
        right: the allowed values in words, where those that follow from bounds and choices do not do.
        value: default of the field, where it is not that of the configuration.
        others: further attributes of `Setting`.
    """
    bounded = any(bound is not None for bound in (least, above, most, below))

    def allows(number: Any) -> bool:
        if isinstance(number, tuple):
            return all(map(allows, number))
        fine = not choices or number in choices
        if bounded:
            fine = fine and (isinstance(number, int) or math.isfinite(number))
        fine = fine and (least is None or number >= least) and (above is None or number > above)
        return fine and (most is None or number <= most) and (below is None or number < below)

    words = right or _in_words(least, above, most, below, choices)
    declared = Setting(help=help, default=default, right=words, allows=allows, **others)
    held = default if value is UNSET else value
    if held is UNSET:
        return field(metadata={_SETTING: declared})
    if callable(held):
        return field(default_factory=held, metadata={_SETTING: declared})
    return field(default=held, metadata={_SETTING: declared})


_SETTING = "setting"
LARGE = 1000
"""Upper bounds from here on are for sanity, and are named after the lower one."""


def _in_words(
    least: float | None,
    above: float | None,
    most: float | None,
    below: float | None,
    choices: tuple[Any, ...],
) -> str:
    if choices:
        return "one of " + ", ".join(map(str, choices))
    if most is not None and most >= LARGE:
        largest = f"{most:,}" if isinstance(most, int) else f"{most:g}"
        return f"{_in_words(least, above, None, None, ())}, at most {largest}"
    if least is not None and (most is not None or below is not None):
        return f"in [{least:g}, {most:g}]" if most is not None else f"in [{least:g}, {below:g})"
    if least is not None:
        return "at least 1" if least == 1 else f"{least:g} or more"
    if above is not None and most is not None:
        return f"above {above:g} and at most {most:g}"
    return "a positive number" if above == 0 else ""


def declarations(kind: type[Any]) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares, by the names of their fields, in order."""
    if kind not in _DECLARED:
        _DECLARED[kind] = {f.name: f.metadata[_SETTING] for f in fields(kind) if _SETTING in f.metadata}
    return _DECLARED[kind]


_DECLARED: dict[type[Any], Mapping[str, Setting]] = {}


def optional_when_stored(declared: Field[Any]) -> bool:
    """Return whether stored objects may lack a field, since it is younger than they are."""
    known: Setting | None = declared.metadata.get(_SETTING)
    if known is not None:
        return known.before is not UNSET
    return declared.default is not MISSING or declared.default_factory is not MISSING


def completed_with_before(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored object's values together with those that it stands for where it lacks settings."""
    younger = [(name, known.before) for name, known in declarations(kind).items() if name not in values]
    return {name: value() if callable(value) else value for name, value in younger} | dict(values)


def check_ranges(declaring: Any, prefix: str = "") -> None:
    """Check the values of all declared settings of a dataclass instance.

    Args:
        prefix: what stands before the name of a setting in its key, for example `train.`.

    Raises:
        UserError: a value is not allowed.
    """
    for name, known in declarations(type(declaring)).items():
        check_range(known, getattr(declaring, name), prefix + name)


def check_range(known: Setting, value: Any, key: str) -> None:
    """Check one value of a declared setting.

    Raises:
        UserError: it is not allowed.
    """
    if value is not None and not known.allows(value):
        require(False, key, list(value) if isinstance(value, tuple) else value, known.right)


def require(fine: bool, key: str, value: object, right: str) -> None:
    """Raise the error of a value out of range unless `fine`.

    Raises:
        UserError: not `fine`.
    """
    if not fine:
        raise UserError(f"{key}={value} is out of range: it must be {right}")


def identity_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an object's values that identifies a run.

    Args:
        kind: the dataclass that declares which of its fields are identity.
        values: its values as a JSON object, possibly of an older version; unknown keys are kept.
    """
    omitted, quiet, parts = _identity(kind)
    found = {name: value for name, value in values.items() if name not in omitted}
    for name, before in quiet:
        if name in found and found[name] == before:
            del found[name]
    for name, part in parts:
        if isinstance(found.get(name), Mapping):
            found[name] = identity_of(part, found[name])
    return found


@cache
def _identity(kind: type) -> tuple[frozenset[str], list[tuple[str, Any]], list[tuple[str, type]]]:
    """Return the fields of a dataclass that are no identity, those omitted at a value, and its parts."""
    known = declarations(kind)
    omitted = frozenset(name for name, declared in known.items() if not declared.identity)
    quiet = [(name, _plain(declared.before)) for name, declared in known.items() if declared.quiet]
    hints = get_type_hints(kind).items()
    parts = [(name, part) for name, part in hints if isinstance(part, type) and is_dataclass(part)]
    return omitted, quiet, parts


def _plain(before: Any) -> Any:
    """A `before` value as JSON has it."""
    value = before() if callable(before) else before
    return asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


class FrozenDict(dict[str, Any]):
    """A dictionary that is hashable and cannot be changed, for the options of frozen dataclasses."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted((key, repr(value)) for key, value in self.items())))

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return type(self), (dict(self),)

    def _refuse(self, *arguments: object, **named: object) -> Any:
        raise TypeError("a FrozenDict cannot be changed")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse


def freeze(declaring: Any, *names: str) -> None:
    """Replace dictionaries and lists of a frozen dataclass under construction by hashable ones."""
    for name in names:
        value = getattr(declaring, name)
        frozen = FrozenDict(value) if isinstance(value, Mapping) else tuple(value)
        object.__setattr__(declaring, name, frozen)
