"""MoSLoRA (arXiv 2406.11909) on q and v: W + s up mixer down."""

import torch

from tests.reference.plain import Plain

STATED = [(8, {}, 296_448, "LoRA's 294,912 and 24 mixers of 8 * 8")]


def counts(dim, depth, hidden, settings):
    return depth * (4 * dim * hidden + 2 * hidden**2), 0


class Model(Plain):
    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = name.split(".")[1]
        q, v = (
            x
            @ self.tensors[f"{i}.{part}.down"].T
            @ self.tensors[f"{i}.{part}.mixer"].T
            @ self.tensors[f"{i}.{part}.up"].T
            for part in ("q", "v")
        )
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
