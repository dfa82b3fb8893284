"""FourierFT (arXiv 2405.03003) on q and v: W + s Re(ifft2(C)), with C zero but at random positions.

Source: huggingface/peft, tuners/fourierft; here the inverse transform is orthonormal. Positions are those of
the smallest SHAKE-256 words of a weight, in ascending order.
"""

import hashlib
import math

import numpy as np
import torch

from tests.reference.plain import Plain

STATED = [
    (1, {"numbers": 3000}, 72_000, "24 projections of 3000, as in Chaos96/fourierft for ViT-B"),
    (1, {"numbers": 2592, "transform": "haar"}, 62_208, "24 projections of 2592, the default of WaveFT"),
]
OPTIONS = [{"transform": "haar"}, {"transform": "none"}]


def counts(dim, depth, hidden, settings):
    return depth * 2 * settings["numbers"], 0


def waves(size):
    """The matrix of the orthonormal inverse Fourier transform, complex (size, size)."""
    steps = torch.arange(size, dtype=torch.float64)
    return torch.exp(2j * math.pi * steps[:, None] * steps / size) / math.sqrt(size)


def haar(size):
    """One level of the orthonormal inverse Haar transform (size, size): sums, then differences."""
    found = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size // 2):
        found[2 * i, i] = found[2 * i + 1, i] = found[2 * i, size // 2 + i] = 1 / math.sqrt(2)
        found[2 * i + 1, size // 2 + i] = -1 / math.sqrt(2)
    return found


class Model(Plain):
    seed = 3

    def update(self, values):
        words = np.frombuffer(
            hashlib.shake_256(f"petl-bench/{self.seed}/adapter.positions".encode()).digest(4 * self.dim**2),
            "<u4",
        )
        places = sorted(np.argsort(words, kind="stable")[: len(values)].tolist())
        spectrum = torch.zeros(self.dim, self.dim, dtype=torch.float64)
        spectrum = spectrum.flatten().index_put((torch.tensor(places),), values.double()).view(self.dim, -1)
        basis = {"fourier": waves, "haar": haar, "none": lambda n: torch.eye(n, dtype=torch.float64)}
        wave = basis[self.settings["transform"]](self.dim)
        found = wave @ spectrum.to(wave.dtype) @ wave.T
        return (found.real if found.is_complex() else found).float()

    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = int(name.split(".")[1])
        q, v = (x @ self.update(self.tensors["values"][2 * i + part]).T for part in (0, 1))
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
