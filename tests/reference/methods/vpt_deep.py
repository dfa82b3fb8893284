"""VPT-deep (arXiv 2203.12119; repository KMnP/vpt): each block replaces the prompts by its own P (n, D)."""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # tokens are added
STATED = [
    (10, {}, 92_160, "12 blocks of 10 prompts of 768"),
    (50, {}, 460_800, "12 blocks of 50 prompts of 768"),
]


def counts(dim, depth, hidden, settings):
    return depth * dim * hidden, 0


class Model(Plain):
    def block(self, i, x):
        first, patches = x[:, :1], x[:, 1 + (self.hidden if i else 0) :]
        prompts = torch.stack([self.tensors[f"{i}.prompts"]] * len(x))
        return super().block(i, torch.cat([first, prompts, patches], 1))
