"""arXiv 2302.08106, luogen1996/RepAdapter: v + s (B (A v + a) + b) before qkv and fc1, B in two groups."""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 221_184 + 18_624, "guide/methods/baselines.md, table 1: RepAdapter"),
    (8, {"attention_only": True}, 110_592 + 9_312, "guide/methods/baselines.md, table 1: attn only"),
]


def counts(dim, depth, hidden, settings):
    sites = depth * (1 if settings["attention_only"] else 2)
    return sites * (hidden * dim + dim * hidden // 2), sites * (hidden + dim)


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        if f"{i}.{role}.down" in self.tensors:
            x = x + self.scale * self.adapted(f"{i}.{role}", x)
        return super().linear(name, x)

    def adapted(self, site, v):
        """A grouped 1x1 convolution, group by group."""
        a, b = self.tensors[f"{site}.bias"]
        hidden = v @ self.tensors[f"{site}.down"].T + a
        up, half = self.tensors[f"{site}.up"], self.hidden // 2
        first = hidden[..., :half] @ up[: self.dim // 2].T
        second = hidden[..., half:] @ up[self.dim // 2 :].T
        return torch.cat([first, second], -1) + b
