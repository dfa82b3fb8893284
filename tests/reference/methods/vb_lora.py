"""VB-LoRA (arXiv 2405.15179): rows of down and columns of up are weighted means of vectors of one bank.

Source: huggingface/peft, tuners/vblora; the weights of the second and further vectors are stored in bytes,
the one of vector j in steps of 1 / (255 (j + 1)) (docs/methods/vb_lora.md).
"""

import math

import torch

from tests.reference.plain import Plain

IDENTITY = False
STATED = [
    (4, {}, 60 * 256, "the bank; 24 sites have 4 * (768 + 768) / 256 pieces each, of 2 numbers and 1 weight"),
    (4, {"vectors": 90, "length": 128}, 90 * 128, "the bank"),
]


def longest(dim):
    return max(n for n in range(1, min(dim, 256) + 1) if dim % n == 0)


def counts(dim, depth, hidden, settings):
    return settings["vectors"] * (settings["length"] or longest(dim)), 0


class Model(Plain):
    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        bank, dim = self.tensors["bank"], x.shape[-1]
        length, mixed = bank.shape[1], self.settings["mixed"]
        each = self.hidden * dim // length
        pieces = []
        for i in range(self.tensors["index.0"].numel()):
            others = [int(self.tensors[f"weight.{j}"][0, i]) / (255 * (j + 1)) for j in range(1, mixed)]
            weights = [1 - math.fsum(others), *others]
            vectors = [bank[int(self.tensors[f"index.{j}"][0, i])] for j in range(mixed)]
            pieces.append(sum(weight * vector for weight, vector in zip(weights, vectors, strict=True)))
        site = 2 * int(name.split(".")[1])
        updates = []
        for part in (site, site + 1):
            down, up = (torch.stack(pieces[k * each : (k + 1) * each]) for k in (2 * part, 2 * part + 1))
            # The pieces of up: all columns of the first rows, then of the next ones.
            up = up.view(dim // length, self.hidden, length).transpose(1, 2).reshape(dim, self.hidden)
            updates.append(x @ down.view(self.hidden, dim).T @ up.T)
        q, v = updates
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
