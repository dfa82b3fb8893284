"""LoRA (arXiv 2106.09685) on q and v without the factor alpha / rank.

Source: repository JieShibo/PETL-ViT, folder binary_adapter.
"""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 294_912, "12 blocks of 4 * 768 * 8"),
    (
        5,
        {"allocation": "rising"},
        184_320,
        "4 * 768 for each of 60 ranks: three blocks each of 2, 4, 6 and 8",
    ),
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
