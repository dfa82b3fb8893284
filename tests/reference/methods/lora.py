"""arXiv 2106.09685 on q and v, as JieShibo/PETL-ViT (binary_adapter) has it: no factor alpha / rank."""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 294_912, "arXiv 2106.09685: 2 * 2 * 768 * 8 a block, 12 blocks"),
    (5, {"allocation": "rising"}, 184_320, "guide/methods/seeds_a.md, section 6: ranks 2 to 8, in all 60"),
]


def counts(dim, depth, hidden, settings):
    return depth * 4 * dim * hidden, 0


class Model(Plain):
    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = name.split(".")[1]
        q, v = (
            x @ self.tensors[f"{i}.{part}.down"].T @ self.tensors[f"{i}.{part}.up"].T for part in ("q", "v")
        )
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
