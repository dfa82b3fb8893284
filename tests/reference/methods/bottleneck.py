"""guide/methods/baselines.md (Houlsby / Pfeiffer adapters), seeds_a.md 8, seeds_b.md 12 (VL-PET)."""

import torch

from tests.reference.plain import Plain, gelu, normalized

STATED = [
    (8, {}, 147_456, "seeds_a.md 8: series, no biases: 2 * 768 * 8 a block"),
    (8, {"sites": "both"}, 2 * 147_456, "twice that"),
    (64, {"placement": "parallel", "bias": True}, 1_179_648 + 9_984, "baselines.md 1: AdaptFormer h=64"),
    (8, {"bias": True, "norm": "own"}, 147_456 + 27_744, "baselines.md 1: Pfeiffer h=8, own LN"),
    # VL-PET, r=gate=8 (seeds_b.md 12): 2.36, 1.25 and 1.33 MB at 4 bytes, 1.18 MB and 74 KB of vectors.
    (8, {"sites": "both", "gate": "large"}, (588_750, 591_250), "seeds_b.md 12: 2.36 MB"),
    (8, {"sites": "both", "gate": "middle_x"}, (311_250, 313_750), "seeds_b.md 12: 1.25 MB"),
    (8, {"sites": "both", "gate": "middle_y"}, 294_912 + 18_432, "seeds_b.md 12: 1.18 MB, 74 KB of vectors"),
    (8, {"sites": "both", "gate": "small"}, (331_250, 333_750), "seeds_b.md 12: 1.33 MB"),
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
        # Those of the backbone first, in timm's order: norm1 and norm2 of each block, then the last one.
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
