"""Pfeiffer adapters (arXiv 2005.00247) as repository ZhangYuanhan-AI/NOAH has them.

With d the output of the MLP branch, x becomes x + d + A(d), A(d) = U quick_gelu(D d + a) + c.
"""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # both matrices are initialized by Xavier's rule
STATED = [
    (8, {}, 147_456 + 9_312, "12 blocks of 2 * 768 * 8 weights and 8 + 768 biases"),
    (8, {"placement": "after", "norm": "own"}, 147_456 + 27_744, "and 12 norms of 2 * 768"),
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
