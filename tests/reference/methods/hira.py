"""HiRA (huggingface/peft, tuners/hira) on q and v: W + s W * (B A), by elements."""

import torch

from tests.reference.plain import Plain

STATED = [(8, {}, 294_912, "as LoRA: 12 blocks of 4 * 768 * 8")]


def counts(dim, depth, hidden, settings):
    return depth * 4 * dim * hidden, 0


class Model(Plain):
    def linear(self, name, x):
        if not name.endswith("qkv"):
            return super().linear(name, x)
        i, weight = name.split(".")[1], self.state[f"{name}.weight"]
        of_q, of_v = (
            self.tensors[f"{i}.{part}.up"] @ self.tensors[f"{i}.{part}.down"] for part in ("q", "v")
        )
        factors = 1 + self.scale * torch.cat([of_q, torch.zeros_like(of_q), of_v])
        return x @ (weight * factors).T + self.state[f"{name}.bias"]
