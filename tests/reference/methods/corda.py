"""arXiv 2406.05223 on all linears: W - B0 A0 frozen, B A trained, both pairs stored."""

from tests.reference.plain import Plain

STATED = [
    (2, {}, 294_912, "guide/methods/seeds_a.md, section 5: the trained pair at r = 2"),
    (8, {}, 1_179_648, "the same at r = 8"),
]


def counts(dim, depth, hidden, settings):
    # Inputs and outputs of qkv, proj, fc1, fc2, in dims: 1 + 3, 1 + 1, 1 + 4, 4 + 1; trained and start.
    return 2 * depth * 16 * dim * hidden, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        trained, start = (
            self.tensors[f"{i}.{role}.up{end}"] @ self.tensors[f"{i}.{role}.down{end}"]
            for end in ("", ".start")
        )
        return super().linear(name, x) + self.scale * x @ (trained - start).T
