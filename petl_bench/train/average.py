"""A weighted mean of the last states of a training (arXiv 2504.18580, Metrics-Weighted Averaging).

    mean = sum_i w_i state_i,   w_i = q_i^power / sum_j q_j^power,   q = 1 / loss, or the epoch

over the states after epochs E, E - every, E - 2 every, ... of E. The loss of a state is the mean training
loss since the one before; test and val have no say. The equation and the defaults are inferred from the
paper's abstract. States are latent float32 weights; what is stored of their mean is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from petl_bench.types import AverageSpec

LEAST_LOSS = 1e-3
"""Smaller losses count as this: they would leave no weight to the others."""


class Average:
    """The mean so far: one copy of the trained parameters, however many states are in it.

    Attributes:
        weight: of the states so far, together.
        mean: one tensor a parameter; none before the first state.
    """

    def __init__(self, spec: AverageSpec, epochs: int) -> None:
        """Before a training of `epochs` epochs."""
        self.spec = spec
        self.epochs = epochs
        self.weight = 0.0
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def after_epoch(self, losses: Sequence[float], parameters: Sequence[nn.Parameter]) -> None:
        """Take the state into the mean if it is one of those; after the last epoch, become the mean.

        Args:
            losses: the mean loss of each epoch so far.
        """
        done = len(losses)
        behind = self.epochs - done
        if behind % self.spec.every or behind // self.spec.every >= self.spec.checkpoints:
            return
        since = mean(losses[max(0, done - self.spec.every) :])
        quality = done if self.spec.by == "step" else 1 / max(since, LEAST_LOSS)
        weight = quality**self.spec.power
        self.weight += weight
        if not self.mean:
            self.mean = [parameter.detach().clone() for parameter in parameters]
        for held, parameter in zip(self.mean, parameters, strict=True):
            held.lerp_(parameter, weight / self.weight)
        if not behind:
            for held, parameter in zip(self.mean, parameters, strict=True):
                parameter.copy_(held)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint of an unfinished training keeps of it."""
        if not self.mean:
            return {}
        weight = torch.tensor(self.weight, dtype=torch.float64)
        return {"weight": weight} | {str(i): value for i, value in enumerate(self.mean)}

    def restore(self, state: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> None:
        """The inverse of `state`."""
        if not state:
            return
        self.weight = state["weight"].item()
        self.mean = [state[str(i)].to(parameter) for i, parameter in enumerate(parameters)]
