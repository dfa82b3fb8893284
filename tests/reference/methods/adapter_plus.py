"""guide/methods/baselines.md: x^ = the block's output; x <- x^ + s * (U gelu(D x^ + a) + c), s a channel."""

from tests.reference.plain import Plain, gelu

IDENTITY = False  # both matrices are drawn from a normal of deviation .01
STATED = [(8, {}, 147_456 + 18_528, "baselines.md 1: Adapter+ h=8")]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, depth * (dim + hidden + dim)


class Model(Plain):
    def block(self, i, x):
        x = super().block(i, x)
        a, c = self.tensors["biases"][2 * i : 2 * i + 2]
        hidden = gelu(x @ self.tensors[f"{i}.mlp.down"].T + a)
        return x + self.tensors["scales"][i] * (hidden @ self.tensors[f"{i}.mlp.up"].T + c)
