"""Options of `petl-bench compress` as settings of a run, and compression of files that are no runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import note, waiting
from petl_bench.cli.options import use_threads
from petl_bench.errors import UserError, counted
from petl_bench.types import COLUMNS, COMPRESSIONS, FLOAT_BITS, RunSpec, check_range, declarations, method

COMPONENT_BITS = "2"
"""Default bits of the first components of loraquant."""


def refuse_codes(what: str, bits: int, float_bits: int) -> None:
    """Refuse an adapter that has fewer than 32 bits already.

    Raises:
        UserError: it has.
    """
    if (least := min(bits, float_bits)) != FLOAT_BITS:
        raise UserError(
            f"{what}: was trained at {counted(least, 'bit')}; only adapters of 32 bits are compressed: "
            "`petl-bench sweep ... bits=32` trains such a run"
        )


def settings_of(adapter: str, how: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the compressed run.

    Args:
        adapter: name of the method.
        how: way of compressing.
        given: options that were given, by name.

    Raises:
        UserError: an option has no use, or is missing.
    """
    unused, known = method(adapter).unused, COMPRESSIONS[how]
    if {"bits", "float_bits"} <= unused.keys():
        raise UserError(f"adapter={adapter}: has nothing to compress; choose a run of another adapter")
    of_bits = {"ptq": ("bits", "quantizer"), "loraquant": ("bits",)}.get(how, ())
    for name, value in given.items():
        if name not in (*of_bits, *known.open):
            raise UserError(f"--{name} {value}: has no use with --how {how}; leave it out")
        if name in ("kept", "strength") and 0 in _numbers(name, value):
            raise UserError(f"--{name} {value}: must be above 0; leave it out to have it chosen on val")
    chosen = {"compress": how} | given
    if how == "loraquant":
        chosen.setdefault("bits", COMPONENT_BITS)
    if how == "ptq" and "bits" not in given:
        raise UserError("--how ptq: give the bits per weight, for example --bits 4")
    if "bits" in unused and "bits" in chosen:
        chosen["float_bits"] = chosen.pop("bits")
    return chosen


def compress_file(
    path: Path,
    how: str,
    given: dict[str, Any],
    settings: list[str],
    out: Path | None,
    weights: str | None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Compress an adapter file that is no run.

    Raises:
        UserError: it cannot be compressed in this way, or something is not given.
    """
    if settings:
        raise UserError(f"{settings[0]}: settings are for runs; {path} is compressed as it is packed")
    if out is None:
        raise UserError(f"{path}: belongs to no run; name the file to write with --out")
    if how == "bitdelta":
        raise UserError(f"{path}: --how bitdelta learns from the training images of a run; name a run")
    with waiting("loading torch"):
        from petl_bench.run.refiling import compressed_file
        from petl_bench.use import read
    use_threads(threads)
    trained = read(path, weights)
    facts = trained.facts.model
    if facts.compress != "none":
        raise UserError(f"{path}: is compressed already")
    refuse_codes(str(path), facts.bits, facts.float_bits)
    chosen = settings_of(facts.adapter.name, how, given)
    for name in COMPRESSIONS[how].open:
        if name in ("kept", "strength") and name not in chosen:
            raise UserError(f"{path}: belongs to no run that could choose it on val; give --{name}")
    for name in chosen.keys() & {"bits", "float_bits"}:
        chosen[name] = _whole(chosen[name])
    for name in chosen.keys() & {"kept", "strength"}:
        numbers = _numbers(name, chosen[name])
        if len(numbers) > 1:
            raise UserError(f"--{name} {chosen[name]}: {out} is one file; give one number")
        chosen[name] = numbers[0]
    for name in chosen.keys() & declarations(RunSpec).keys():
        check_range(declarations(RunSpec)[name], chosen[name], f"--{name}")
    with waiting(f"compressing {path}"):
        data, columns = compressed_file(trained.file, facts, chosen, str(path))
    write_atomic(out, data)
    note(f"wrote {out}: {len(data):,} bytes")
    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    before = {"acc_source": None, "bytes_source": trained.size, "out": str(out)}
    return empty | columns | before


def _whole(text: str) -> int:
    if not str(text).isdecimal() or not 1 <= int(text) <= 8:
        raise UserError(f"--bits {text}: must be a whole number, 1 to 8")
    return int(text)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--{name} {text}: must be a number, or several as in 0.05,0.1") from None
