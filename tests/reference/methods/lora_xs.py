"""LoRA-XS (arXiv 2405.17604) on all linears: W + s U_r R S_r V_r^T with R trained.

Source: repository MohammadrezaBanaei/LoRA-XS. Singular vectors have the sign with which the entry of largest
magnitude of each left one is positive (docs/methods/lora_xs.md).
"""

import torch

from tests.reference.plain import Plain

STATED = [
    (4, {"sites": "qv"}, 384, "24 projections of 4 * 4"),
    (16, {}, 12_288, "48 linears of 16 * 16"),
    (2, {"numbers": 64, "tied": True}, 64, "TinyLoRA with one vector for all linears"),
    (2, {"numbers": 13}, 624, "48 linears of 13"),
]
ROLES = ("qkv", "proj", "fc1", "fc2")


def counts(dim, depth, hidden, settings):
    return depth * len(ROLES) * hidden**2, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = int(name.split(".")[1]), name.split(".")[-1]
        place, r = len(ROLES) * i + ROLES.index(role), self.hidden
        u, s, vt = torch.linalg.svd(self.state[f"{name}.weight"].double(), full_matrices=False)
        u, s, vt = u[:, :r], s[:r], vt[:r]
        signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
        core = self.tensors["core"][place * r : (place + 1) * r].double()
        update = (u * signs) @ core @ (s[:, None] * vt * signs.T)
        return super().linear(name, x) + self.scale * x @ update.float().T
