"""Houlsby adapters (arXiv 1902.00751) as repository visinf/adapter_plus has them; docs/methods/bottleneck.md.

On both branches, with d the output of the branch, x becomes x + d + A(d), A(d) = U gelu(D d + a) + c.
"""

from tests.reference.plain import Plain, gelu

IDENTITY = False  # both matrices are drawn from a normal distribution of standard deviation 0.01
STATED = [
    (8, {}, 294_912 + 18_624, "24 branches of 2 * 768 * 8 weights and 8 + 768 biases"),
    (8, {"norms": True}, 294_912 + 57_024, "and 25 norms of 2 * 768"),
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
