"""Four convolutions, normalized per image, and the mean over positions (docs/methods/scratch.md)."""

from itertools import pairwise

import torch

from tests.reference.plain import Plain, normalized

IDENTITY = False
STATED = [(8, {}, 234 * 64 + 27 * 8, "27 h + 18 h^2 + 72 h^2 + 144 h^2"), (1, {}, 261, "the same")]


def counts(dim, depth, hidden, settings):
    widths = (3, hidden, 2 * hidden, 4 * hidden, 4 * hidden)
    return sum(9 * a * b for a, b in pairwise(widths)), 0


class Model(Plain):
    def features(self, images):
        side = self.settings["side"]
        edges = [(i * images.shape[-1] // side, -(-(i + 1) * images.shape[-1] // side)) for i in range(side)]
        rows = torch.stack([images[:, :, a:b].mean(2) for a, b in edges], 2)
        x = torch.stack([rows[..., a:b].mean(3) for a, b in edges], 3)
        for i, stride in enumerate((1, 2, 2, 2)):
            padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
            windows = padded.unfold(2, 3, stride).unfold(3, 3, stride)  # batch, inputs, rows, columns, 3, 3
            tokens = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)
            x = (tokens @ self.tensors[f"{i}.kernel"].T).permute(0, 3, 1, 2)
            x = torch.relu(normalized(x.flatten(1), 1e-5).view(x.shape))
        return x.mean((2, 3))
