"""Float parameters that are trained and stored as quantized deviations from their initial values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petl_bench import initialization
from petl_bench.backbones.precision import casts
from petl_bench.quantizers import FakeQuantize

LEAST = 3
"""Least numbers of a vector that is quantized; fewer take no more bytes in float32 than a mean and a std."""


class QuantizedFloats:
    """The float parameters of one stored vector: initial value + quantized deviation, before each pass.

    The initial values are known to whoever builds the model again: constants, seeded values, or parameters of
    the backbone. The latent deviation starts near zero, as the latent weight of an `up` matrix does, because
    standardization divides by its standard deviation.

    Args:
        name: name of the vector within the adapter.
        parameters: parameters of `network` at their initial values; they are removed from its modules until
            `materialize` is called.
        network: the adapted network.
        seed: seed of the initialization.
        quantizer: on `device`.
        dtype: dtype in which the modules use the parameters.
        device: device of the latent deviation.

    Attributes:
        latent: parameter (1, numbers), float32.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[nn.Parameter],
        network: nn.Module,
        seed: int,
        quantizer: FakeQuantize,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.parameters, self.quantizer, self.dtype = parameters, quantizer, dtype
        self.places = casts(network, parameters, dtype)
        self.initial = vector(parameters).detach().to(device)
        size = (1, self.initial.numel())
        start = torch.from_numpy(initialization.near_zero(seed, f"adapter.{name}", size))
        self.latent = nn.Parameter(start.to(device))

    def materialize(self) -> None:
        """Give all modules the current values, differentiable in the latent deviation."""
        values = (self.initial + self.quantizer(self.latent)[0]).to(self.dtype)
        pieces = dict(zip(map(id, self.parameters), split(values, self.parameters), strict=True))
        for place in self.places:
            setattr(place.module(), place.name, pieces[id(place.parameter)])


def vector(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the values of parameters as one vector (numbers,)."""
    return torch.cat([parameter.flatten() for parameter in parameters])


def split(values: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return the pieces of a vector (numbers,) in the shapes of parameters, the inverse of `vector`."""
    pieces = values.split([parameter.numel() for parameter in parameters])
    return [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
