"""guide/methods/baselines.md: P (n, D) as in vpt_shallow; later blocks replace these by their own P."""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # tokens are added
STATED = [
    (10, {}, 92_160, "baselines.md 1: VPT-deep n=10"),
    (50, {}, 460_800, "baselines.md 1: VPT-deep n=50"),
]


def counts(dim, depth, hidden, settings):
    return depth * dim * hidden, 0


class Model(Plain):
    def block(self, i, x):
        first, patches = x[:, :1], x[:, 1 + (self.hidden if i else 0) :]
        prompts = torch.stack([self.tensors[f"{i}.prompts"]] * len(x))
        return super().block(i, torch.cat([first, prompts, patches], 1))
