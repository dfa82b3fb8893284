"""RoAd (arXiv 2409.00119), road_1: outputs of q and v in groups, whose halves are rotated and stretched.

Source: huggingface/peft, tuners/road: pairs (i, i + group / 2) in groups of 64, or one group if 64 does not
divide the width.
"""

import torch

from tests.reference.plain import Plain

STATED = [(0, {}, 18_432, "24 projections of 384 angles and 384 lengths")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim, 0


class Model(Plain):
    def turned(self, y, place):
        angle = self.scale * self.tensors["angles"][place]
        length = 1 + self.scale * self.tensors["lengths"][place]
        group = 64 if self.dim % 64 == 0 else self.dim
        result = torch.empty_like(y)
        for pair in range(self.dim // 2):
            start = pair // (group // 2) * group + pair % (group // 2)
            z = torch.complex(y[..., start], y[..., start + group // 2])
            z = z * torch.polar(length[pair], angle[pair])
            result[..., start], result[..., start + group // 2] = z.real, z.imag
        return result

    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = int(name.split(".")[1])
        q, k, v = y.chunk(3, -1)
        return torch.cat([self.turned(q, 2 * i), k, self.turned(v, 2 * i + 1)], -1)
