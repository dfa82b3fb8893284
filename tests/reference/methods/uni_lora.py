"""Uni-LoRA (arXiv 2506.00799): entries of LoRA on q and v are values of one vector, each used equally often.

Source: huggingface/peft, tuners/unilora: index = a shuffled tiling of 0 ... d - 1, entry = theta[index] /
sqrt(count). Here times sqrt(entries / d), and shuffled by SHAKE-256 words (docs/methods/uni_lora.md).
"""

import hashlib

import numpy as np
import torch

from tests.reference.plain import Plain

IDENTITY = False
STATED = [
    (4, {"numbers": 256}, 256, "theta_d_length of peft, for r = 4"),
    (4, {"numbers": 1024, "projection": "dense"}, 1024, "the vector alone"),
]
OPTIONS = [{"projection": "dense"}]
PARTS = ("q", "v")


def counts(dim, depth, hidden, settings):
    return settings["numbers"], 0


def words(name, count, seed):
    return np.frombuffer(hashlib.shake_256(f"petl-bench/{seed}/{name}".encode()).digest(4 * count), "<u4")


class Model(Plain):
    seed = 3

    def entries(self, dim):
        """All matrices, in the order of blocks, q before v, down before up."""
        theta = self.tensors["theta"][0]
        d, depth = len(theta), len({key.split(".")[1] for key in self.state if key.startswith("blocks.")})
        keys = [f"{i}.{part}.{kind}" for i in range(depth) for part in PARTS for kind in ("down", "up")]
        size = dim * self.hidden
        if self.settings["projection"] == "dense":
            found = {}
            for key in keys:
                uniform = (words(f"adapter.{key}", size * d, self.seed) + 0.5) / 2**32
                basis = ((2 * uniform - 1) * np.sqrt(3 / d)).astype(np.float32).reshape(size, d)
                found[key] = torch.from_numpy(basis) @ theta
            return found
        shuffled = sorted(
            range(size * len(keys)), key=list(words("adapter.index", size * len(keys), self.seed)).__getitem__
        )
        index = torch.tensor(shuffled) % d
        count = torch.bincount(index, minlength=d)
        flat = (theta / (count * d / len(index)).sqrt())[index]
        return dict(zip(keys, flat.split(size), strict=True))

    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i, dim = name.split(".")[1], x.shape[-1]
        found = self.entries(dim)
        q, v = (
            x
            @ found[f"{i}.{part}.down"].view(self.hidden, dim).T
            @ found[f"{i}.{part}.up"].view(dim, self.hidden).T
            for part in PARTS
        )
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
