"""arXiv 2106.10199: all biases of the backbone."""

from tests.reference.plain import Plain

STATED = [(0, {}, 102_912, "the sum of all biases of ViT-B/16, guide/methods/baselines.md")]


def counts(dim, depth, hidden, settings):
    # Of a block: norm1, qkv, proj, norm2, fc1, fc2; then the patch embedding and the last norm.
    return 0, depth * (1 + 3 + 1 + 1 + 4 + 1) * dim + 2 * dim


class Model(Plain):
    def __init__(self, state, tensors, *rest):
        names = [name for name in state if name.endswith(".bias")]
        super().__init__({**state, **dict(zip(names, tensors["biases"], strict=True))}, tensors, *rest)
