"""The pair of matrices that low-rank adapters are made of."""

from __future__ import annotations

from torch import nn

from petl_bench.errors import UserError


def pair(inputs: int, hidden: int, outputs: int, quantized: bool) -> tuple[nn.Linear, nn.Linear]:
    """`down` (hidden, inputs) and `up` (outputs, hidden), bias-free.

    `down` starts as torch's Linear does. `up` starts at zero in float32, so that training begins at the
    backbone; quantized, it starts as a normal of deviation 1e-3 cut at +-2e-3, because signs and
    standardization need a spread (method of arXiv 2307.16867, released code).
    """
    if hidden < 1:
        raise UserError(f"hidden={hidden} is out of range: this adapter needs at least 1 hidden unit")
    down = nn.Linear(inputs, hidden, bias=False)
    up = nn.Linear(hidden, outputs, bias=False)
    if quantized:
        nn.init.trunc_normal_(up.weight, std=1e-3, a=-2e-3, b=2e-3)
    else:
        nn.init.zeros_(up.weight)
    return down, up
