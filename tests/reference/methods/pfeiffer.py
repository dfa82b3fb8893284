"""guide/methods/baselines.md (b), NOAH: x <- x + d + A(d), d = mlp, A = U quickgelu(D d + a) + c."""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # both matrices start as Glorot and Bengio's
STATED = [
    (8, {}, 147_456 + 9_312, "baselines.md 1: Pfeiffer h=8, no LN"),
    (8, {"placement": "after", "norm": "own"}, 147_456 + 27_744, "baselines.md 1: Pfeiffer h=8, own LN"),
]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, depth * (dim + hidden)


class Model(Plain):
    def mlp_branch(self, i, x):
        d = super().mlp_branch(i, x)
        a, c = self.tensors["biases"][2 * i : 2 * i + 2]
        v = d @ self.tensors[f"{i}.mlp.down"].T + a
        hidden = v * torch.sigmoid(1.702 * v)
        return d + self.scale * (hidden @ self.tensors[f"{i}.mlp.up"].T + c)
