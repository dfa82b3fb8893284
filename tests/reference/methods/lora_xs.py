"""LoRA-XS (arXiv 2405.17604) on all linears: W + s U_r R S_r V_r^T with R trained.

TinyLoRA (arXiv 2602.04118): R = sum of v_i P_i with v trained. basis=random: U_r and V_r are uniform.

Source: repository MohammadrezaBanaei/LoRA-XS. Singular vectors have the sign with which the entry of largest
magnitude of each left one is positive (docs/methods/lora_xs.md).
"""

import hashlib
from statistics import NormalDist

import numpy as np
import torch

from tests.reference.plain import Plain

STATED = [
    (4, {"sites": "qv"}, 384, "24 projections of 4 * 4"),
    (16, {}, 12_288, "48 linears of 16 * 16"),
    (2, {"numbers": 64, "tied": True}, 64, "TinyLoRA with one vector for all linears"),
    (2, {"numbers": 13}, 624, "48 linears of 13"),
]
OPTIONS = [{"basis": "random"}, {"numbers": 3}, {"numbers": 3, "tied": True}]
ROLES = ("qkv", "proj", "fc1", "fc2")


def counts(dim, depth, hidden, settings):
    return depth * len(ROLES) * hidden**2, 0


def probabilities(name, shape, seed):
    digest = hashlib.shake_256(f"petl-bench/{seed}/adapter.{name}".encode()).digest(4 * int(np.prod(shape)))
    return (np.frombuffer(digest, "<u4").reshape(shape) + 0.5) / 2**32


class Model(Plain):
    seed = 3

    def core(self, place, name):
        """R of a linear, float64 (r, r)."""
        r, numbers = self.hidden, self.settings["numbers"]
        if not numbers:
            return self.tensors["core"][place * r : (place + 1) * r].double()
        drawn = probabilities(f"{name}.patterns", (numbers, r, r), self.seed)
        patterns = np.vectorize(NormalDist(0, r**-0.5).inv_cdf)(drawn)
        values = self.tensors["values"][0 if self.settings["tied"] else place].double()
        return torch.einsum("u,uab->ab", values, torch.from_numpy(patterns))

    def random(self, name, size):
        values = 2 * probabilities(name, (size, self.hidden), self.seed) - 1
        return torch.from_numpy(values * (3 / size) ** 0.5)

    def linear(self, name, x):
        i, role = int(name.split(".")[1]), name.split(".")[-1]
        r, key = self.hidden, f"{i}.{role}"
        u, s, vt = torch.linalg.svd(self.state[f"{name}.weight"].double(), full_matrices=False)
        u, s, vt = u[:, :r], s[:r], vt[:r]
        signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
        u, v = u * signs, vt.T * signs
        if self.settings["basis"] == "random":
            u, v = self.random(f"{key}.left", len(u)), self.random(f"{key}.right", len(v))
        update = u @ self.core(len(ROLES) * i + ROLES.index(role), key) @ (s[:, None] * v.T)
        return super().linear(name, x) + self.scale * x @ update.float().T
