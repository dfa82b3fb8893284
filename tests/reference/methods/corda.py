"""CorDA (arXiv 2406.05223) on all linears: W - B0 A0 is frozen, B A is trained, both pairs are stored."""

from tests.reference.plain import Plain

STATED = [
    (2, {}, 294_912, "12 blocks of (4 + 2 + 5 + 5) * 768 * 2: inputs and outputs of the four linears"),
    (8, {}, 1_179_648, "four times that, at rank 8"),
]


def counts(dim, depth, hidden, settings):
    # Inputs and outputs of qkv, proj, fc1, fc2 in units of dim: 1 + 3, 1 + 1, 1 + 4, 4 + 1. Two pairs.
    return 2 * depth * 16 * dim * hidden, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        trained, start = (
            self.tensors[f"{i}.{role}.up{end}"] @ self.tensors[f"{i}.{role}.down{end}"]
            for end in ("", ".start")
        )
        return super().linear(name, x) + self.scale * x @ (trained - start).T
