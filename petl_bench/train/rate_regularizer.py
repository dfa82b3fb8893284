"""Rate-aware training: latent weights are drawn toward the codes that the coded payload expects.

Once an epoch the model of petl_bench.packing.predict runs over the codes as they are and says, for each, the
log-odds l of its upper bit. With weight w, every step of learning rate r then adds r * w * l to the latent
weight: the gradient of the code length with respect to the sign, straight through and decoupled from AdamW,
as its weight decay is. Codes that the model expects stay or come; surprising ones must be worth their bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from petl_bench import initialization
from petl_bench.packing import CodeMatrix, expected_log_odds
from petl_bench.quantizers import FakeQuantize


class RateTerm:
    """The pull on the matrices of an adapter; none until the first `refresh`."""

    def __init__(self, matrices: Mapping[str, tuple[Tensor, FakeQuantize]], seed: int, weight: float) -> None:
        self.matrices = list(matrices.values())
        self.weight = weight
        self.coded = []
        for name, (latent, quantizer) in matrices.items():
            words = initialization.words(seed, f"adapter.{name}", tuple(latent.shape))
            self.coded.append(CodeMatrix(tuple(latent.shape), quantizer.bits, words))
        self.pulls: list[Tensor] = []

    def refresh(self) -> None:
        """Take the pulls from the codes as they are now."""
        codes = [quantizer.encode(latent)[0].cpu().numpy() for latent, quantizer in self.matrices]
        self.pulls = [
            torch.from_numpy(found).to(latent)
            for found, (latent, _) in zip(expected_log_odds(self.coded, codes), self.matrices, strict=True)
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """What a step at learning rate `rate` adds."""
        for pull, (latent, _) in zip(self.pulls, self.matrices, strict=False):
            latent.add_(pull, alpha=rate * self.weight)
