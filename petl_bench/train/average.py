"""Weighted mean of the last states of a training.

    mean = sum_i w_i state_i,   w_i = q_i^power / sum_j q_j^power,   q = 1 / loss, or the epoch

The mean is over the states after epochs E, E - every, E - 2 every, ... of a training of E epochs. The loss of
a state is the mean training loss since the state before it; val and test images are not used. States are
latent float32 weights, and their mean is quantized once.

Source: Metrics-Weighted Averaging, arXiv 2504.18580. The equation and the defaults are inferred from the
paper's abstract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from petl_bench.types import AverageSpec

LEAST_LOSS = 1e-3
"""Smallest loss in the weights; smaller losses are replaced by it, since they would dominate the mean."""


class Average:
    """Running weighted mean of states; it holds one copy of the trainable parameters.

    Args:
        spec: which states are averaged, and their weights.
        epochs: number of epochs of the training.

    Attributes:
        weight: sum of the weights of the states so far.
        mean: one tensor per parameter; empty before the first state.
    """

    def __init__(self, spec: AverageSpec, epochs: int) -> None:
        self.spec = spec
        self.epochs = epochs
        self.weight = 0.0
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def after_epoch(self, losses: Sequence[float], parameters: Sequence[nn.Parameter]) -> None:
        """Add the current state if it is averaged; after the last epoch, set the parameters to the mean.

        Args:
            losses: mean loss of each epoch so far.
            parameters: trainable parameters.
        """
        done = len(losses)
        left = self.epochs - done
        if left % self.spec.every or left // self.spec.every >= self.spec.checkpoints:
            return
        since = mean(losses[max(0, done - self.spec.every) :])
        quality = done if self.spec.by == "step" else 1 / max(since, LEAST_LOSS)
        weight = quality**self.spec.power
        self.weight += weight
        if not self.mean:
            self.mean = [parameter.detach().clone() for parameter in parameters]
        for held, parameter in zip(self.mean, parameters, strict=True):
            held.lerp_(parameter, weight / self.weight)
        if not left:
            for held, parameter in zip(self.mean, parameters, strict=True):
                parameter.copy_(held)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors from which `restore` continues the mean."""
        if not self.mean:
            return {}
        weight = torch.tensor(self.weight, dtype=torch.float64)
        return {"weight": weight} | {str(i): value for i, value in enumerate(self.mean)}

    def restore(self, state: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> None:
        """Continue the mean from the tensors that `state` returned."""
        if not state:
            return
        self.weight = state["weight"].item()
        self.mean = [state[str(i)].to(parameter) for i, parameter in enumerate(parameters)]
