"""LN-Tune (arXiv 2304.01917): weights and biases of all layer norms are trained."""

from tests.reference.plain import Plain

STATED = [(0, {}, 38_400, "25 layer norms of 2 * 768")]


def counts(dim, depth, hidden, settings):
    return 0, (2 * depth + 1) * 2 * dim


class Model(Plain):
    def __init__(self, state, tensors, *rest):
        names = [name for name in state if "norm" in name]
        super().__init__({**state, **dict(zip(names, tensors["norms"], strict=True))}, tensors, *rest)
