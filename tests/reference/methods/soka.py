"""SoKA (arXiv 2506.15251) on all linears.

W minus its leading Kronecker terms is frozen, and as many terms are trained.
"""

import torch

from tests.reference.methods.krona import of_block, split
from tests.reference.plain import Plain

STATED = [(2, {}, 256_512, "two terms of 128,256 numbers, as KronA has one")]


def counts(dim, depth, hidden, settings):
    return depth * of_block(dim) * hidden, 0


def leading(weight, terms):
    """Return the sum of the leading Kronecker terms of W.

    With each block of W as a row, it is the best approximation of rank `terms`.
    """
    (m, p), (n, q) = split(weight.shape[0]), split(weight.shape[1])
    blocks = [(i, j) for i in range(m) for j in range(n)]
    rows = [weight[i * p : (i + 1) * p, j * q : (j + 1) * q].flatten() for i, j in blocks]
    u, s, vt = torch.linalg.svd(torch.stack(rows).double(), full_matrices=False)
    best = ((u[:, :terms] * s[:terms]) @ vt[:terms]).float()
    found = torch.zeros_like(weight)
    for (i, j), row in zip(blocks, best, strict=True):
        found[i * p : (i + 1) * p, j * q : (j + 1) * q] = row.reshape(p, q)
    return found


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        weight = self.state[f"{name}.weight"]
        trained = 0
        for k in range(self.hidden):
            left, right = (self.tensors[f"{i}.{role}.{side}.{k}"] for side in ("left", "right"))
            trained = trained + torch.kron(left, right)
        changed = weight + self.scale * (trained - leading(weight, self.hidden))
        return x @ changed.T + self.state[f"{name}.bias"]
