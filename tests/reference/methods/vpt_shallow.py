"""guide/methods/baselines.md: P (n, D) between class token and patches, before block 0, carried on."""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # tokens are added
STATED = [
    (10, {}, 7_680, "baselines.md 1: VPT-shallow n=10"),
    (50, {}, 38_400, "baselines.md 1: VPT-shallow n=50"),
]


def counts(dim, depth, hidden, settings):
    return dim * hidden, 0


class Model(Plain):
    def embedded(self, images):
        x = super().embedded(images)
        prompts = torch.stack([self.tensors["0.prompts"]] * len(images))
        return torch.cat([x[:, :1], prompts, x[:, 1:]], 1)
