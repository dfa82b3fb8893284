"""guide/methods/seeds_a.md 2: h + MLP(norm2 h) + s U gelu(P LN_a(h) + c) + s e, as it is in evaluation."""

from tests.reference.plain import Plain, gelu, normalized

STATED = [
    (16, {}, 294_912 + 27_840, "seeds_a.md 2: r=16"),
    (16, {"norm": "none"}, 304_320, "seeds_a.md 2: r=16 without LN_a"),
    (64, {}, 1_208_064, "seeds_a.md 2: r=64"),
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
