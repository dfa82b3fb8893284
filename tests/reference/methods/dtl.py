"""DTL (repository heekhero/DTL, models/vision_transformer.py): h beside the blocks, added to later ones."""

import torch

from tests.reference.plain import Plain

STATED = [(2, {}, 36_864, "12 blocks of 2 * 768 * 2; the paper's 0.04 M")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, 0


class Model(Plain):
    def features(self, images):
        x, h = self.embedded(images), 0
        for i in range(self.depth):
            h = h + self.scale * x @ self.tensors[f"{i}.down"].T @ self.tensors[f"{i}.up"].T
            x = self.block(i, x)
            if i >= self.depth // 2:
                x = x + h / (1 + torch.exp(-100 * h))
        return self.norm("norm", x)[:, 0]
