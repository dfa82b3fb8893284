"""guide/methods/baselines.md: d = branch; x <- x + d + A(d) on both branches, A = U gelu(D d + a) + c."""

from tests.reference.plain import Plain, gelu

IDENTITY = False  # both matrices are drawn from a normal of deviation .01
STATED = [
    (8, {}, 294_912 + 18_624, "baselines.md 1: Houlsby h=8"),
    (8, {"norms": True}, 294_912 + 57_024, "baselines.md 1: Houlsby h=8 with all LNs"),
]


def counts(dim, depth, hidden, settings):
    return depth * 4 * dim * hidden, depth * 2 * (dim + hidden)


class Model(Plain):
    def attention_branch(self, i, x):
        return self.adapted(i, 0, super().attention_branch(i, x))

    def mlp_branch(self, i, x):
        return self.adapted(i, 1, super().mlp_branch(i, x))

    def adapted(self, i, second, d):
        name = f"{i}.{('attention', 'mlp')[second]}"
        a, c = self.tensors["biases"][4 * i + 2 * second :][:2]
        hidden = gelu(d @ self.tensors[f"{name}.down"].T + a)
        return d + self.scale * (hidden @ self.tensors[f"{name}.up"].T + c)
