"""Adapter+ (repository visinf/adapter_plus; docs/methods/bottleneck.md).

With x the output of a block, x becomes x + s * (U gelu(D x + a) + c); s has one value per channel.
"""

from tests.reference.plain import Plain, gelu

IDENTITY = False  # both matrices are drawn from a normal distribution of standard deviation 0.01
STATED = [(8, {}, 147_456 + 18_528, "12 blocks of 2 * 768 * 8 weights, 8 + 768 biases and 768 scales")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, depth * (dim + hidden + dim)


class Model(Plain):
    def block(self, i, x):
        x = super().block(i, x)
        a, c = self.tensors["biases"][2 * i : 2 * i + 2]
        hidden = gelu(x @ self.tensors[f"{i}.mlp.down"].T + a)
        return x + self.tensors["scales"][i] * (hidden @ self.tensors[f"{i}.mlp.up"].T + c)
