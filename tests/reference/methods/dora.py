"""DoRA (arXiv 2402.09353, equation 5) on q and v: m * V / |V| with V = W + s B A and constant |V|."""

import torch

from tests.reference.plain import Plain

STATED = [(8, {}, 313_344, "LoRA's 294,912 and 24 lengths of 768 rows")]


def counts(dim, depth, hidden, settings):
    return depth * 4 * dim * hidden, depth * 2 * dim


class Model(Plain):
    def linear(self, name, x):
        if not name.endswith("qkv"):
            return super().linear(name, x)
        i, (w_q, w_k, w_v) = int(name.split(".")[1]), self.state[f"{name}.weight"].chunk(3)
        rows = []
        for place, (part, w) in enumerate((("q", w_q), ("v", w_v))):
            v = w + self.scale * self.tensors[f"{i}.{part}.up"] @ self.tensors[f"{i}.{part}.down"]
            m = w.norm(dim=1) + self.tensors["lengths"][2 * i + place]
            rows.append((m / v.norm(dim=1).detach())[:, None] * v)
        return x @ torch.cat([rows[0], w_k, rows[1]]).T + self.state[f"{name}.bias"]
