"""Rate-aware training: latent weights are pulled toward the codes that the entropy coder expects.

Once per epoch the model of petl_bench.packing.predict is applied to the current codes. For each code it gives
the log-odds l of the upper bit. With weight w, every step of learning rate r then adds r * w * l to the
latent weight. This is the gradient of the code length with respect to the sign, with a straight-through
estimator and decoupled from AdamW, as its weight decay is. Expected codes are kept or reached, and unexpected
codes remain only where the loss justifies their code length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from petl_bench import initialization
from petl_bench.packing import CodeMatrix, expected_log_odds
from petl_bench.quantizers import FakeQuantize


class RateRegularizer:
    """Regularizer of the quantized matrices of an adapter; it has no effect before the first `refresh`.

    Args:
        matrices: latent weight (outputs, inputs) and quantizer of each matrix, by name.
        seed: seed of the initialization, from which the coder predicts.
        weight: weight w of the regularizer.
    """

    def __init__(self, matrices: Mapping[str, tuple[Tensor, FakeQuantize]], seed: int, weight: float) -> None:
        self.matrices = list(matrices.values())
        self.weight = weight
        self.code_matrices = []
        for name, (latent, quantizer) in matrices.items():
            words = initialization.words(seed, f"adapter.{name}", tuple(latent.shape))
            self.code_matrices.append(CodeMatrix(tuple(latent.shape), quantizer.bits, words))
        self.log_odds: list[Tensor] = []

    def refresh(self) -> None:
        """Compute the log-odds of the current codes."""
        codes = [quantizer.encode(latent)[0].cpu().numpy() for latent, quantizer in self.matrices]
        self.log_odds = [
            torch.from_numpy(values).to(latent)
            for values, (latent, _) in zip(
                expected_log_odds(self.code_matrices, codes), self.matrices, strict=True
            )
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the latent weights after a step of the optimizer."""
        for log_odds, (latent, _) in zip(self.log_odds, self.matrices, strict=False):
            latent.add_(log_odds, alpha=learning_rate * self.weight)
