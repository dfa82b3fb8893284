"""guide/methods/seeds_b.md 7: p + s * sum of softmax(R p)_k E_k of p, its low and its high frequencies."""

import cmath

import torch

from tests.reference.plain import Plain

IDENTITY = False  # kaiming on both linears
SHORT = "less the last block's 24,576, which class-token pooling never reads; 11 scales"
STATED = [
    # 1.80 MB at 4 bytes: 9 blocks of 2 * 768 * 16 and 3 of three times that and 3 * 768.
    (16, {}, 449_280 - 24_576 + 11, f"seeds_b.md 7: r=16, 3 FFT blocks, {SHORT}"),
    # "biases another 56 KB": 18 experts of 16 + 768; the last block's left out, 3 routers of 3.
    (16, {"bias": True}, 449_280 - 24_576 + 11 + 17 * 784 + 9, f"seeds_b.md 7: with biases, {SHORT}"),
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
        """Those of block i."""
        sizes = [7 if f"{j}.router" in self.tensors else 2 for j in range(self.depth - 1)]
        return self.tensors["biases"][sum(sizes[:i]) : sum(sizes[: i + 1])]

    def low(self, patches):
        """One frequency after the other: those of -c to c - 1 rows and columns."""
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
