"""arXiv 2205.13535, as JieShibo/PETL-ViT (binary_adapter) has it: beside the MLP branch, no biases."""

import torch

from tests.reference.plain import Plain

STATED = [(32, {}, 589_824, "arXiv 2307.16867: 2 * 768 * 32 a block, 12 blocks")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, 0


class Model(Plain):
    def mlp_branch(self, i, x):
        hidden = torch.relu(x @ self.tensors[f"{i}.down"].T)
        return super().mlp_branch(i, x) + self.scale * hidden @ self.tensors[f"{i}.up"].T
