"""SSF (arXiv 2210.08823; repository dongzelian/SSF): scale * y + shift after every operation."""

from tests.reference.plain import Plain

STATED = [
    (
        0,
        {},
        205_824,
        "2 * 768 * (12 * 11 + 2): in a block 11 vectors of 768, then patch embedding and last norm",
    )
]
IDENTITY = False  # scales are drawn around 1, shifts around 0


def counts(dim, depth, hidden, settings):
    # norm1, qkv, proj, norm2, fc1, fc2 of each block; then the patch embedding and the last norm.
    return 0, 2 * (depth * (1 + 3 + 1 + 1 + 4 + 1) * dim + 2 * dim)


class Model(Plain):
    def __init__(self, *given):
        super().__init__(*given)
        parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        names = [f"blocks.{i}.{part}" for i in range(self.depth) for part in parts]
        names = ["patch_embed.proj", *names, "norm"]
        pairs = zip(self.tensors["scales"], self.tensors["shifts"], strict=True)
        self.pairs = dict(zip(names, pairs, strict=True))

    def shifted(self, name, y):
        scale, shift = self.pairs[name]
        return scale * y + shift

    def patches(self, images):
        return self.shifted("patch_embed.proj", super().patches(images))

    def linear(self, name, x):
        return self.shifted(name, super().linear(name, x))

    def norm(self, name, x):
        return self.shifted(name, super().norm(name, x))
