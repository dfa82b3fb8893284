"""(IA)3 (arXiv 2205.05638): keys, values and inputs of fc2 times 1 + s * vector. Source: section 3.3."""

import torch

from tests.reference.plain import Plain

STATED = [(0, {}, 55_296, "12 blocks of (1 + 1 + 4) * 768")]


def counts(dim, depth, hidden, settings):
    return depth * 6 * dim, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = int(name.split(".")[1]), name.split(".")[-1]
        if role == "fc2":
            x = x * (1 + self.scale * self.tensors["mlp"][i])
        y = super().linear(name, x)
        if role != "qkv":
            return y
        q, k, v = y.chunk(3, -1)
        of_k, of_v = (1 + self.scale * vector for vector in self.tensors["attention"][2 * i : 2 * i + 2])
        return torch.cat([q, k * of_k, v * of_v], -1)
