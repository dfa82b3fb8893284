"""Earth-Adapter (repository VisionXLab/Earth-Adapter; docs/methods/earth.md).

A patch p becomes p + s * sum_k softmax(R p)_k E_k(p_k), where p_1 is p and p_2 and p_3 are its low and high
frequencies on the grid of patches.
"""

import cmath

import torch

from tests.reference.plain import Plain

IDENTITY = False  # both linears are initialized by Kaiming's rule
EXPERT = 2 * 768 * 16
STATED = [
    # The last of 12 blocks has none: the class token never reads its patches. Three blocks have 3 experts.
    (16, {}, 8 * EXPERT + 3 * (3 * EXPERT + 3 * 768) + 11, "17 experts, 3 routers, 11 scales"),
    (
        16,
        {"bias": True},
        8 * EXPERT + 3 * (3 * EXPERT + 3 * 768) + 11 + 17 * (16 + 768) + 3 * 3,
        "the same with biases of 17 experts and 3 routers",
    ),
]


def counts(dim, depth, hidden, settings):
    blocks = depth - 1
    mixing = min(blocks, settings["frequency"])
    return blocks * 2 * dim * hidden + mixing * (4 * dim * hidden + 3 * dim), blocks


class Model(Plain):
    def block(self, i, x):
        x = super().block(i, x)
        blocks = self.depth - 1
        if i == blocks:
            return x
        last = self.settings["where"] == "last"
        mixes = (blocks - 1 - i if last else i) < self.settings["frequency"]
        patches = x[:, 1:]
        if mixes:
            b = self.biases(i)[-1] if self.settings["bias"] else 0
            shares = torch.softmax(patches @ self.tensors[f"{i}.router"].T + b, -1)
            low = self.low(patches)
            fed = {"all": patches, "low": low, "high": patches - low}
            update = sum(
                shares[..., k, None] * self.expert(i, k, band, fed[band]) for k, band in enumerate(fed)
            )
        else:
            update = self.expert(i, 0, "all", patches)
        return torch.cat([x[:, :1], patches + self.tensors["scales"][i] * update], 1)

    def expert(self, i, k, band, v):
        a, c = self.biases(i)[2 * k : 2 * k + 2] if self.settings["bias"] else (0, 0)
        hidden = v @ self.tensors[f"{i}.{band}.down"].T + a
        return torch.where(hidden > 0, hidden, 0 * hidden) @ self.tensors[f"{i}.{band}.up"].T + c

    def biases(self, i):
        """Return the biases of block i."""
        sizes = [7 if f"{j}.router" in self.tensors else 2 for j in range(self.depth - 1)]
        return self.tensors["biases"][sum(sizes[:i]) : sum(sizes[: i + 1])]

    def low(self, patches):
        """Sum the waves of frequencies -c to c - 1 along rows and columns, one after the other."""
        side = round(patches.shape[1] ** 0.5)
        c = max(1, int(side * self.settings["cutoff"] // 2))
        total = 0
        for k in range(-c, c):
            for m in range(-c, c):
                wave = torch.tensor(
                    [
                        cmath.exp(2j * cmath.pi * (k * r + m * s) / side)
                        for r in range(side)
                        for s in range(side)
                    ]
                ).to(torch.complex64)
                coefficient = torch.einsum("p,bpd->bd", wave.conj(), patches.to(torch.complex64)) / side**2
                total = total + torch.einsum("p,bd->bpd", wave, coefficient)
        return total.real
