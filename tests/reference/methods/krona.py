"""arXiv 2212.10650 on all linears: W + s A x B, the Kronecker product."""

import torch

from tests.reference.plain import Plain

STATED = [(0, {}, 128_256, "guide/methods/seeds_a.md, section 4: all four linears, one term")]


def split(width):
    """The guide's 32 x 24, 48 x 48 and 64 x 48 of 768, 2304 and 3072: the closest pair, the greater first."""
    return min(
        ((d, width // d) for d in range(1, width + 1) if width % d == 0 and d * d >= width),
        key=lambda pair: pair[0],
    )


def term(outputs, inputs):
    (m, p), (n, q) = split(outputs), split(inputs)
    return m * n + p * q


def of_block(dim):
    return term(3 * dim, dim) + term(dim, dim) + term(4 * dim, dim) + term(dim, 4 * dim)


def counts(dim, depth, hidden, settings):
    return depth * of_block(dim), 0


class Model(Plain):
    def linear(self, name, x):
        site = ".".join(name.split(".")[1::2][:1] + name.split(".")[-1:])
        product = torch.kron(self.tensors[f"{site}.left"], self.tensors[f"{site}.right"])
        return super().linear(name, x) + self.scale * x @ product.T
