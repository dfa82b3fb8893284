"""cambridgeltl/composable-sft on the linears of a ViT, as guide/methods/seeds_b.md translates it."""

import torch

from tests.reference.plain import Plain

TABLE = "guide/methods/seeds_b.md, table of densities, rounded to thousands"
STATED = [
    (0, {"density": 0.0005}, (41_500, 42_499), TABLE),
    (0, {"density": 0.001}, (84_500, 85_499), TABLE),
    (0, {"density": 0.005}, (424_500, 425_499), TABLE),
]


def counts(dim, depth, hidden, settings):
    # Weights of qkv, proj, fc1, fc2; changes come in 64 rows.
    return 64 * round(settings["density"] * depth * (3 + 1 + 4 + 4) * dim * dim / 64), 0


class Model(Plain):
    def __init__(self, *given):
        super().__init__(*given)
        gaps = torch.zeros(self.tensors["changes"].numel(), dtype=torch.long)
        for plane in sorted(name for name in self.tensors if name.startswith("gaps")):
            gaps = 256 * gaps + self.tensors[plane].flatten().long()
        parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        names = [f"blocks.{i}.{part}" for i in range(self.depth) for part in parts]
        weights = torch.cat([self.state[f"{name}.weight"].flatten() for name in names])
        changed = weights.index_add(0, gaps.cumsum(0), self.tensors["changes"].flatten())
        sizes = [self.state[f"{name}.weight"].shape for name in names]
        pieces = changed.split([size.numel() for size in sizes])
        self.weights = {name: w.view(size) for name, w, size in zip(names, pieces, sizes, strict=True)}

    def linear(self, name, x):
        return x @ self.weights[name].T + self.state[f"{name}.bias"]
