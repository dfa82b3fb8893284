"""An adapted vision transformer as a function of its trainable tensors, with dropout 0 (arXiv 2307.16867).

Trainable tensors are a dict in the order of the file. AdaptFormer has "i.down" (hidden, dim) and "i.up"
(dim, hidden) for each block i, LoRA has "i.q.down", "i.q.up", "i.v.down" and "i.v.up". The head comes last:
"weight" (classes, dim), and "bias" (classes) if it is linear.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference import codebook, vit
from tests.reference.quantize import fake_quantize


@dataclass
class Reference:
    state: dict[str, Tensor]
    trainable: dict[str, Tensor]
    heads: int
    adapter: str
    head: str
    bits: int
    scale: float

    def logits(self, images):
        features = vit.features(self.state, images, self.heads, self._update)
        if self.head == "linear":
            return features @ self.trainable["weight"].T + self.trainable["bias"]
        return features @ _quantized(self.trainable["weight"], 1).T

    def _update(self, role, x):
        block, place = role.split(".")
        if self.adapter == "adaptformer" and place == "mlp":
            hidden = torch.relu(x @ self._matrix(f"{block}.down").T)
            return self.scale * (hidden @ self._matrix(f"{block}.up").T)
        if self.adapter == "lora" and place in ("q", "v"):
            return self.scale * (x @ self._matrix(f"{role}.down").T @ self._matrix(f"{role}.up").T)
        return None

    def _matrix(self, name):
        latent = self.trainable[name]
        return latent if self.bits == 32 else _quantized(latent, self.bits)


def _quantized(weight, bits):
    return fake_quantize(weight, torch.from_numpy(codebook.l1_median(bits)))
