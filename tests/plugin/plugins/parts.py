"""A quantizer and a head."""

import numpy as np
from torch import nn

from petl_bench.model.heads import HEADS, Head
from petl_bench.quantizers.base import CODEBOOKS, Codebook, Levels


def levels(bits: int) -> Levels:
    """Return 2**bits ascending levels."""
    return np.linspace(-1.5, 1.5, 2**bits)


CODEBOOKS.register("even")(Codebook(levels))


@HEADS.register("unbiased")
def unbiased(features: int, classes: int) -> Head:
    """Build a head without bias."""
    return Head(nn.Linear(features, classes, bias=False), 32)
