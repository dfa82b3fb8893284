"""Compression of trained adapters: what a file holds of them, and how a model is filled from it.

ptq         the matrices and floats that training with quantization stores, rounded after the training
compeft     one vector of all deviations from the start, each zero or one size with a sign
loraquant   singular components of low-rank updates, the first of them at more bits
bitdelta    signs and one coefficient per matrix of full fine-tuning
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from petl_bench.model.compression import bitdelta, compeft, loraquant
from petl_bench.packing import Entry, StoredTensor


class Form(NamedTuple):
    """Form of an adapter in a file that differs from that of a trained one.

    Attributes:
        check: function of a component and its network that raises a UserError if the component has no such
            form.
        entries: function of a component and the stored tensors that returns the tensors it must have.
        fill: function that fills a component at its start with these tensors.
    """

    check: Callable[[Any, Any], None]
    entries: Callable[[Any, Sequence[StoredTensor]], list[Entry]]
    fill: Callable[[Any, Sequence[StoredTensor]], None]


FORMS = {
    "compeft": Form(compeft.check, compeft.entries, compeft.fill),
    "loraquant": Form(loraquant.check, loraquant.entries, loraquant.fill),
    "bitdelta": Form(bitdelta.check, bitdelta.entries, bitdelta.fill),
}
"""Forms by name of the compression; that of `ptq` is the form of a trained adapter."""

__all__ = ["FORMS", "Form"]
