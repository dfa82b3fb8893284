"""VeRA (arXiv 2310.11454) on q and v: W + s diag(b) B diag(d) A with one frozen pair A, B.

Source: huggingface/peft, tuners/vera and tuners/pvera. A and B are uniform within 1 / sqrt(columns), from
SHAKE-256 words.
"""

import hashlib

import numpy as np
import torch

from tests.reference.plain import Plain

STATED = [
    (256, {}, 24_576, "24 projections of 256 + 768"),
    (256, {"probabilistic": True}, 30_720, "24 projections of 2 * 256 + 768"),
]
OPTIONS = [{"probabilistic": True}]


def counts(dim, depth, hidden, settings):
    return depth * 2 * (hidden + dim), 0


def frozen(name, rows, columns, seed):
    words = np.frombuffer(
        hashlib.shake_256(f"petl-bench/{seed}/adapter.{name}".encode()).digest(4 * rows * columns), "<u4"
    )
    values = (2 * (words + 0.5) / 2**32 - 1) / np.sqrt(columns)
    return torch.from_numpy(values.astype(np.float32).reshape(rows, columns))


class Model(Plain):
    seed = 3

    def linear(self, name, x):
        y = super().linear(name, x)
        if not name.endswith("qkv"):
            return y
        i = int(name.split(".")[1])
        # PVeRA: the second half of A and d is the logarithm of a variance, without effect in evaluation.
        rows = self.hidden * (2 if self.settings["probabilistic"] else 1)
        a = frozen("A", rows, self.dim, self.seed)[: self.hidden]
        b = frozen("B", self.dim, self.hidden, self.seed)
        q, v = (
            ((x @ a.T) * self.tensors["d"][2 * i + part][: self.hidden])
            @ b.T
            * self.tensors["b"][2 * i + part]
            for part in (0, 1)
        )
        return y + self.scale * torch.cat([q, torch.zeros_like(q), v], -1)
