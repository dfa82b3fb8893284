"""MoSA (arXiv 2312.02923; repository Theia-4869/MoSA) in evaluation, when its experts are merged.

The branch is MLP(norm2 h) + s (U gelu(P LN(h) + c) + e) with a LayerNorm of its own.
"""

from tests.reference.plain import Plain, gelu, normalized

STATED = [
    (16, {}, 294_912 + 27_840, "12 blocks of 2 * 768 * 16 weights, 16 + 768 biases and 2 * 768 of the norm"),
    (16, {"norm": "none"}, 294_912 + 12 * (16 + 768), "the same without norms"),
    (64, {}, 1_208_064, "12 blocks of 2 * 768 * 64 weights, 64 + 768 biases and 2 * 768 of the norm"),
]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, depth * (hidden + dim + 2 * dim)


class Model(Plain):
    def mlp_branch(self, i, x):
        c, e = self.tensors["biases"][2 * i : 2 * i + 2]
        fed = x
        if self.settings["norm"] == "own":
            fed = normalized(x) * self.tensors["norms"][2 * i] + self.tensors["norms"][2 * i + 1]
        hidden = gelu(fed @ self.tensors[f"{i}.down"].T + c)
        return super().mlp_branch(i, x) + self.scale * (hidden @ self.tensors[f"{i}.up"].T + e)
