"""LT-SFT (repository cambridgeltl/composable-sft) on the linears of a ViT (docs/methods/lt_sft.md)."""

import torch

from tests.reference.plain import Plain

ELIGIBLE = "a fraction of 12 * 12 * 768 ** 2 = 84,934,656 weights, in 64 rows"
STATED = [
    (0, {"density": 0.0005}, (42_467 - 64, 42_467 + 64), ELIGIBLE),
    (0, {"density": 0.001}, (84_935 - 64, 84_935 + 64), ELIGIBLE),
    (0, {"density": 0.005}, (424_673 - 64, 424_673 + 64), ELIGIBLE),
]


def counts(dim, depth, hidden, settings):
    # Weights of qkv, proj, fc1, fc2; changes are stored in 64 rows.
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
