"""Bottleneck adapters at every place, with norms and with the gates of VL-PET (docs/methods/bottleneck.md).

Sources: arXiv 1902.00751 (Houlsby), 2005.00247 (Pfeiffer), 2205.13535 (AdaptFormer); repositories
AGI-Edgerunners/LLM-Adapters (series and parallel) and HenryHZY/VL-PET (gates).
"""

import torch

from tests.reference.plain import Plain, gelu, normalized

STATED = [
    (8, {}, 147_456, "12 blocks of 2 * 768 * 8 weights"),
    (8, {"sites": "both"}, 2 * 147_456, "twice that, on both branches"),
    (
        64,
        {"placement": "parallel", "bias": True},
        1_179_648 + 9_984,
        "12 blocks of 2 * 768 * 64 weights and 64 + 768 biases",
    ),
    (
        8,
        {"bias": True, "norm": "own"},
        147_456 + 27_744,
        "12 blocks of 2 * 768 * 8 weights, 8 + 768 biases and 2 * 768 of the norm",
    ),
    # Gates on 24 branches: a pair of hidden 8, a row of 768, a vector of 768, a row of 2 * 768.
    (8, {"sites": "both", "gate": "large"}, 294_912 + 24 * 2 * 768 * 8, "a second pair of the same shapes"),
    (8, {"sites": "both", "gate": "middle_x"}, 294_912 + 24 * 768, "one row of 768 per branch"),
    (8, {"sites": "both", "gate": "middle_y"}, 294_912 + 24 * 768, "one vector of 768 per branch"),
    (8, {"sites": "both", "gate": "small"}, 294_912 + 24 * 2 * 768, "one row of 2 * 768 per branch"),
]


def counts(dim, depth, hidden, settings):
    return depth * 2 * dim * hidden, 0


ACTIVATIONS = {
    "relu": lambda x: torch.where(x > 0, x, 0 * x),
    "gelu": gelu,
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}


class Model(Plain):
    def __init__(self, state, tensors, *rest):
        # The norms of the backbone in timm's order: norm1 and norm2 of each block, then the last one.
        names = [name for name in state if "norm" in name] if "backbone_norms" in tensors else []
        super().__init__(
            {**state, **dict(zip(names, tensors.get("backbone_norms", []), strict=True))}, tensors, *rest
        )
        both = self.settings["sites"] == "both"
        self.roles = ["attention", "mlp"] if both else [self.settings["sites"]]

    def attention_branch(self, i, x):
        return self.changed(i, "attention", "norm1", x, super().attention_branch(i, x))

    def mlp_branch(self, i, x):
        return self.changed(i, "mlp", "norm2", x, super().mlp_branch(i, x))

    def changed(self, i, role, norm, x, d):
        if role not in self.roles:
            return d
        z = self.norm(f"blocks.{i}.{norm}", x)
        where = i * len(self.roles) + self.roles.index(role)
        fed = {"series": d, "parallel": x, "normed": z, "after": x + d}[self.settings["placement"]]
        if self.settings["norm"] == "own":
            weight, bias = self.tensors["norms"][2 * where : 2 * where + 2]
            fed = normalized(fed) * weight + bias
        a, c = self.tensors["biases"][2 * where : 2 * where + 2] if self.settings["bias"] else (0, 0)
        hidden = ACTIVATIONS[self.settings["activation"]](fed @ self.tensors[f"{i}.{role}.down"].T + a)
        learned = self.settings["learned_scale"] != "none"
        factor = self.tensors["scales"][where] if learned else self.scale
        y = d + factor * (hidden @ self.tensors[f"{i}.{role}.up"].T + c)
        return y * self.gate(f"{i}.{role}.gate", where, z, y)

    def gate(self, name, where, u, y):
        if self.settings["gate"] == "large":
            hidden = gelu(u @ self.tensors[f"{name}.down"].T)
            return 2 * torch.sigmoid(hidden @ self.tensors[f"{name}.up"].T)
        if self.settings["gate"] == "middle_x":
            return 2 * torch.sigmoid((u + y) @ self.tensors[name].T)
        if self.settings["gate"] == "middle_y":
            return 1 + self.tensors["gates"][where]
        if self.settings["gate"] == "small":
            weight = self.tensors[name][0]
            per_token = 2 * torch.sigmoid(u @ weight[: self.dim] + y @ weight[self.dim :])
            return per_token.mean(1)[:, None, None]
        return 1
