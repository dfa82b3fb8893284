"""Ways of compressing a trained adapter: what each stores, and which settings it leaves open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from petl_bench.types.settings import FrozenDict

NOT_COMPRESSED = "none"
"""Value of the setting `compress` of runs that are stored as they were trained."""


@dataclass(frozen=True)
class Compression:
    """Facts about one way of compressing.

    Attributes:
        description: one sentence.
        fixed: settings of the run that follow from the way of compressing, with their values.
        open: settings of compression that it has a use for.
        kept: values of `kept` that are tried on val where none is given, ascending.
        strengths: values of `strength` that are tried on val where none is given, ascending.
    """

    description: str
    fixed: FrozenDict = field(default_factory=FrozenDict)
    open: tuple[str, ...] = ()
    kept: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()

    def candidates(self, kept: float, strength: float) -> list[tuple[float, float]]:
        """Return the pairs of `kept` and `strength` to choose from, those that keep less first.

        Args:
            kept: the given value; 0: it is to be chosen.
            strength: likewise.
        """
        shares = (kept,) if kept or not self.kept else self.kept
        sizes = (strength,) if strength or not self.strengths else self.strengths
        return [(share, size) for share in shares for size in sizes]


def _fixed(**settings: Any) -> FrozenDict:
    return FrozenDict(settings)


COMPRESSIONS: dict[str, Compression] = {
    "ptq": Compression("Round the trained weights to the levels of a codebook.", open=("statistics_of",)),
    "compeft": Compression(
        "Keep the largest deviations from the start as signs with one common size (arXiv 2311.13171).",
        fixed=_fixed(bits=2, float_bits=2, quantizer="minmax"),
        open=("kept", "strength"),
        kept=(0.05, 0.1, 0.2, 0.3, 0.5),
        strengths=(0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
    ),
    "loraquant": Compression(
        "Store the first singular components of each update at more bits than the rest, which gets 1.",
        fixed=_fixed(float_bits=32, quantizer="minmax"),
        open=("kept",),
        kept=(0.5, 0.7, 0.8, 0.9, 0.95),
    ),
    "bitdelta": Compression(
        "Store signs and one coefficient per matrix of the difference from the pretrained weights.",
        fixed=_fixed(float_bits=1, quantizer="minmax"),
    ),
}
"""Ways of compressing by name."""
