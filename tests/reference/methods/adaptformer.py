"""AdaptFormer (arXiv 2205.13535) in parallel to the MLP branch, without biases.

Source: repository JieShibo/PETL-ViT, folder binary_adapter.
"""

import torch

from tests.reference.plain import Plain

STATED = [(32, {}, 589_824, "12 blocks of 2 * 768 * 32 weights (arXiv 2307.16867)")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, 0


class Model(Plain):
    def mlp_branch(self, i, x):
        hidden = torch.relu(x @ self.tensors[f"{i}.down"].T)
        return super().mlp_branch(i, x) + self.scale * hidden @ self.tensors[f"{i}.up"].T
