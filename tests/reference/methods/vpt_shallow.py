"""VPT-shallow (arXiv 2203.12119; repository KMnP/vpt).

P (n, D) stands between class token and patches before the first block and passes through all blocks.
"""

import torch

from tests.reference.plain import Plain

IDENTITY = False  # tokens are added
STATED = [
    (10, {}, 7_680, "10 prompts of 768"),
    (50, {}, 38_400, "50 prompts of 768"),
]


def counts(dim, depth, hidden, settings):
    return dim * hidden, 0


class Model(Plain):
    def embedded(self, images):
        x = super().embedded(images)
        prompts = torch.stack([self.tensors["0.prompts"]] * len(images))
        return torch.cat([x[:, :1], prompts, x[:, 1:]], 1)
