"""KronA (arXiv 2212.10650) on all linears: W + s A x B, x being the Kronecker product."""

import torch

from tests.reference.plain import Plain

STATED = [
    # 768 = 32 * 24, 2304 = 48 * 48 and 3072 = 64 * 48.
    (0, {}, 12 * (48 * 32 + 48 * 24 + 32 * 32 + 24 * 24 + 2 * (64 * 32 + 48 * 24)), "qkv, proj, fc1 and fc2"),
]


def split(width):
    """Return the two closest factors of a width, the greater first: 32 and 24 for 768."""
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
