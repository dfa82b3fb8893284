"""C3A (arXiv 2407.19342) on q and v: each output block is a sum of circular correlations of input blocks.

Source: huggingface/peft, tuners/c3a; here divided by the square root of the number of inputs.
"""

import math

import torch

from tests.reference.plain import Plain

STATED = [
    (1, {"block": 768}, 18_432, "24 projections of one kernel of 768"),
    (1, {"block": 128}, 110_592, "24 projections of 6 * 6 kernels of 128"),
]
OPTIONS = [{"block": 16}]


def counts(dim, depth, hidden, settings):
    block = settings["block"] or dim
    return depth * 2 * dim * dim // block, 0


class Model(Plain):
    def correlated(self, kernels, x):
        """Return the outputs of an update for x (..., dim) by Fourier transforms of the blocks."""
        block = kernels.shape[1]
        spectra = torch.fft.fft(kernels.view(self.dim // block, self.dim // block, block))
        pieces = torch.fft.fft(x.unflatten(-1, (-1, block)))
        found = torch.fft.ifft(torch.einsum("oib,...ib->...ob", spectra.conj(), pieces)).real
        return found.flatten(-2) / math.sqrt(self.dim)

    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i, kernels = int(name.split(".")[1]), self.tensors["kernels"]
        count = len(kernels) // (2 * self.depth)
        q, v = (self.correlated(kernels[(2 * i + part) * count :][:count], x) for part in (0, 1))
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
