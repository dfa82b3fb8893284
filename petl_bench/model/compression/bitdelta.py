"""BitDelta: signs and one coefficient per matrix of the difference from the pretrained weights.

    W' = W + a * sign(W_trained - W)

a is the mean magnitude of the difference, which is the coefficient of least squared error; then all
coefficients are trained together so that the network gives the outputs of the trained one
(petl_bench.run.distillation). Parameters that are vectors, such as biases and norms, keep their trained
float32 values.

Source: Liu et al. 2024 (arXiv 2402.10193) and repository FasterDecoding/BitDelta, where linears of the blocks
have signs; here all parameters of two or more dimensions have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from petl_bench.errors import UserError
from petl_bench.model.compression.parameters import Parameters, add, decoded, evenly_coded
from petl_bench.packing import Entry, StoredTensor
from petl_bench.types import FLOAT_BITS

GROUP = "parameters"
BITS = 1


def check(component: Parameters, network: nn.Module) -> None:
    """Refuse an adapter other than full fine-tuning.

    Raises:
        UserError: it is another one.
    """
    if component.matrices or [*component.floats] != [GROUP]:
        raise UserError("compress=bitdelta: needs adapter=full")


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is stored by signs: it has two dimensions or more beyond 1."""
    return sum(size > 1 for size in parameter.shape) >= 2


def entries(component: Parameters, stored: Sequence[StoredTensor]) -> list[Entry]:
    """Return the tensors of a file: the signs of each matrix, then all other parameters as one vector."""
    parameters = component.floats[GROUP]
    signs = [
        Entry(f"{GROUP}.{number}", (parameter.numel(),), BITS)
        for number, parameter in enumerate(parameters)
        if is_matrix(parameter)
    ]
    rest = sum(parameter.numel() for parameter in parameters if not is_matrix(parameter))
    return [*signs, Entry(GROUP, (rest,), FLOAT_BITS)]


@torch.no_grad()
def fill(component: Parameters, stored: Sequence[StoredTensor]) -> None:
    """Add the stored differences to the pretrained weights of a component, and copy all other parameters."""
    parameters, (*signs, rest) = component.floats[GROUP], stored
    matrices = [parameter for parameter in parameters if is_matrix(parameter)]
    for matrix, tensor in zip(matrices, signs, strict=True):
        add([matrix], decoded(tensor))
    others = [parameter for parameter in parameters if not is_matrix(parameter)]
    for parameter in others:
        parameter.zero_()
    add(others, decoded(rest))


@torch.no_grad()
def differences(start: Parameters, trained: Parameters) -> list[Tensor]:
    """Return the difference of each matrix from its pretrained weights, float32 in its shape."""
    pairs = zip(trained.floats[GROUP], start.floats[GROUP], strict=True)
    return [own - begun for own, begun in pairs if is_matrix(own)]


def coefficients(moved: Sequence[Tensor]) -> list[float]:
    """Return the mean magnitude of each difference, its coefficient of least squared error."""
    return [float(difference.double().abs().mean()) for difference in moved]


@torch.no_grad()
def compress(trained: Parameters, moved: Sequence[Tensor], sizes: Sequence[float]) -> list[StoredTensor]:
    """Return the tensors of a file.

    Args:
        trained: the trained adapter.
        moved: its differences from the pretrained weights.
        sizes: coefficient of each difference.
    """
    parameters = trained.floats[GROUP]
    numbers = [number for number, parameter in enumerate(parameters) if is_matrix(parameter)]
    found = [
        evenly_coded(
            f"{GROUP}.{number}", _signs(difference), BITS, -float(np.float32(a)), 2 * float(np.float32(a))
        )
        for number, difference, a in zip(numbers, moved, sizes, strict=True)
    ]
    rest = torch.cat([p.flatten() for p in parameters if not is_matrix(p)]).numpy()
    return [*found, StoredTensor(Entry(GROUP, rest.shape, FLOAT_BITS), values=rest)]


def _signs(difference: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return (difference > 0).flatten().cpu().numpy().astype(np.uint8)
