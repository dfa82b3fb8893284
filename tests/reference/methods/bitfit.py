"""BitFit (arXiv 2106.10199): all biases of the backbone are trained."""

from tests.reference.plain import Plain

STATED = [
    (
        0,
        {},
        102_912,
        "768 * (12 * 11 + 2): in a block 11 vectors of 768 biases, then patch embedding and last norm",
    )
]


def counts(dim, depth, hidden, settings):
    # norm1, qkv, proj, norm2, fc1, fc2 of each block; then the patch embedding and the last norm.
    return 0, depth * (1 + 3 + 1 + 1 + 4 + 1) * dim + 2 * dim


class Model(Plain):
    def __init__(self, state, tensors, *rest):
        names = [name for name in state if name.endswith(".bias")]
        super().__init__({**state, **dict(zip(names, tensors["biases"], strict=True))}, tensors, *rest)
