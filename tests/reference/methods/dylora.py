"""DyLoRA (arXiv 2210.07558) on q and v at its first b ranks: y + (s / b) B[:, :b] A[:b] x, s being alpha."""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 294_912, "12 blocks of 4 * 768 weights for each of 8 ranks"),
    (2, {}, 73_728, "2 of these ranks"),
]


def counts(dim, depth, hidden, settings):
    return depth * 4 * dim * (settings["kept"] or hidden), 0


class Model(Plain):
    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = name.split(".")[1]
        q, v = self.update(i, "q", x), self.update(i, "v", x)
        return y + torch.cat([q, torch.zeros_like(q), v], -1)

    def update(self, i, part, x):
        b = self.settings["kept"] or self.hidden
        total = 0
        for k in range(b):
            row, column = self.tensors[f"{i}.{part}.down.{k}"][0], self.tensors[f"{i}.{part}.up.{k}"][:, 0]
            total = total + (x @ row)[..., None] * column
        return self.scale / b * total
