"""SketchTune (repository LeanModels/SketchTune) with exact W0 and codes from its quantiles.

docs/methods/sketch.md says how it is translated to a ViT.
"""

import torch

from tests.reference.plain import Plain

STATED = [
    (16, {}, 1_327_104, "12 blocks of (3 + 1 + 4 + 1) * 768 rows of 16"),
    (4, {}, 331_776, "the same rows of 4"),
]


def counts(dim, depth, hidden, settings):
    # Rows of qkv, proj, fc1, fc2.
    return depth * (3 + 1 + 4 + 1) * dim * hidden * settings["groups"], 0


class Model(Plain):
    def linear(self, name, x):
        _, i, _, role = name.split(".")
        levels, groups = self.hidden, self.settings["groups"]
        w0 = self.state[f"{name}.weight"]
        rows = []
        for row, grid in zip(w0, self.tensors[f"{i}.{role}"], strict=True):
            changed = []
            for group, values in zip(row.chunk(groups), grid.chunk(groups), strict=True):
                # The rank of a weight among its n says its quantile: no two are equal in random weights.
                rank = group.argsort().argsort()
                edges = [level * len(group) // levels for level in range(1, levels)]
                codes = sum((rank >= edge).long() for edge in edges)
                changed.append(group + values[codes])
            rows.append(torch.cat(changed))
        return x @ torch.stack(rows).T + self.state[f"{name}.bias"]
