"""The pair of matrices that low-rank adapters are made of."""

from __future__ import annotations

from torch import nn

from petl_bench import initial
from petl_bench.adapters.base import Attached, Shape
from petl_bench.errors import UserError


def pair(
    attached: Attached, name: str, inputs: int, outputs: int, shape: Shape
) -> tuple[nn.Linear, nn.Linear]:
    """`NAME.down` (hidden, inputs) and `NAME.up` (outputs, hidden), bias-free, added to what is attached.

    `down` starts as torch's Linear does. `up` starts at zero in float32, so that training begins at the
    backbone; quantized, it starts near zero, because signs and standardization need a spread (method of
    arXiv 2307.16867, released code).
    """
    if shape.hidden < 1:
        raise UserError(f"hidden={shape.hidden} is out of range: this adapter needs at least 1 hidden unit")
    down = nn.Linear(inputs, shape.hidden, bias=False)
    up = nn.Linear(shape.hidden, outputs, bias=False)
    attached.matrices.update({f"{name}.down": down, f"{name}.up": up})
    attached.starts[f"{name}.up"] = initial.near_zero if shape.quantized else initial.zero
    return down, up
