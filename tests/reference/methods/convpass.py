"""Convpass (arXiv 2207.07039; repository JieShibo/PETL-ViT, folder convpass).

x becomes x + branch + s * P(z), where P holds a 3x3 convolution over the grid of patches.
"""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 308_736 + 18_816, "24 branches of 2 * 768 * 8 + 9 * 8 * 8 weights and 8 + 8 + 768 biases"),
    (8, {"sites": "attention"}, 154_368 + 9_408, "12 branches of the same"),
]


def counts(dim, depth, hidden, settings):
    return depth * 2 * (2 * dim * hidden + 9 * hidden**2), depth * 2 * (dim + 2 * hidden)


def quick(x):
    return x * torch.sigmoid(1.702 * x)


class Model(Plain):
    def attention_branch(self, i, x):
        return super().attention_branch(i, x) + self.bypass(i, "attention", self.norm(f"blocks.{i}.norm1", x))

    def mlp_branch(self, i, x):
        return super().mlp_branch(i, x) + self.bypass(i, "mlp", self.norm(f"blocks.{i}.norm2", x))

    def bypass(self, i, role, z):
        sites = ["attention", "mlp"] if self.settings["sites"] == "both" else [self.settings["sites"]]
        if role not in sites:
            return 0
        first = 3 * (len(sites) * i + sites.index(role))
        a, b, c = self.tensors["biases"][first : first + 3]
        down, conv, up = (self.tensors[f"{i}.{role}.{part}"] for part in ("down", "conv", "up"))
        hidden = quick(z @ down.T + a)
        side = round((hidden.shape[1] - 1) ** 0.5)
        kernel = conv.reshape(self.hidden, self.hidden, 3, 3)  # outputs, inputs, rows, columns
        pixels = [[hidden[:, 1 + side * r + s] for s in range(side)] for r in range(side)]
        convolved = [hidden[:, 0] @ kernel[:, :, 1, 1].T + b]
        for r in range(side):
            for s in range(side):
                total = b
                for row in range(max(r - 1, 0), min(r + 2, side)):
                    for column in range(max(s - 1, 0), min(s + 2, side)):
                        total = total + pixels[row][column] @ kernel[:, :, row - r + 1, column - s + 1].T
                convolved.append(total)
        return self.scale * (quick(torch.stack(convolved, 1)) @ up.T + c)
