"""PiSSA (arXiv 2404.02948) on all linears: W - B0 A0 is frozen, B A is trained.

B0 A0 is the best approximation of W of rank r.
"""

import torch

from tests.reference.plain import Plain

STATED = [(2, {}, 294_912, "12 blocks of (4 + 2 + 5 + 5) * 768 * 2: inputs and outputs of the four linears")]


def counts(dim, depth, hidden, settings):
    # Inputs and outputs of qkv, proj, fc1, fc2, in units of dim: 1 + 3, 1 + 1, 1 + 4, 4 + 1.
    return depth * 16 * dim * hidden, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        weight = self.state[f"{name}.weight"]
        trained = self.tensors[f"{i}.{role}.up"] @ self.tensors[f"{i}.{role}.down"]
        u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
        r = self.hidden
        start = ((u[:, :r] * s[:r]) @ vt[:r]).float()
        residual = weight - self.scale * start
        return x @ (residual + self.scale * trained).T + self.state[f"{name}.bias"]
