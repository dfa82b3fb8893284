"""RepAdapter (arXiv 2302.08106; repository luogen1996/RepAdapter) before qkv and fc1.

v becomes v + s (B (A v + a) + b), where B has two groups.
"""

import torch

from tests.reference.plain import Plain

STATED = [
    (8, {}, 221_184 + 18_624, "24 sites of 768 * 8 + 768 * 4 weights and 8 + 768 biases"),
    (8, {"attention_only": True}, 110_592 + 9_312, "12 sites of the same"),
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
        """Compute the grouped 1x1 convolution group by group."""
        a, b = self.tensors[f"{site}.bias"]
        hidden = v @ self.tensors[f"{site}.down"].T + a
        up, half = self.tensors[f"{site}.up"], self.hidden // 2
        first = hidden[..., :half] @ up[: self.dim // 2].T
        second = hidden[..., half:] @ up[self.dim // 2 :].T
        return torch.cat([first, second], -1) + b
