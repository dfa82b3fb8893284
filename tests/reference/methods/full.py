"""Full fine-tuning: all parameters of the backbone."""

from tests.reference.plain import Plain

STATED = [
    (0, {}, 85_798_656, "86,567,656 parameters of ViT-B/16 (torchvision) less 1000 * 769 of the classifier")
]


def counts(dim, depth, hidden, settings):
    """Count for images of 32 pixels in patches of 8."""
    block = 3 * dim * dim + 3 * dim + dim * dim + dim + 2 * 4 * dim * dim + 5 * dim + 4 * dim
    return 0, depth * block + dim + (1 + 16) * dim + (3 * 8 * 8 + 1) * dim + 2 * dim


class Model(Plain):
    def __init__(self, state, tensors, *rest):
        names = [name for name in state if not name.endswith(("running_mean", "running_var"))]
        super().__init__(dict(zip(names, tensors["parameters"], strict=True)), tensors, *rest)
