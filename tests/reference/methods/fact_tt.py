"""FacT-TT (arXiv 2212.03145; repository JieShibo/PETL-ViT, folder FacT): y + s V (S (U x)), by chunks."""

import torch

from tests.reference.plain import Plain

STATED = [(16, {}, 61_440, "2 * 768 * 16 + 12 blocks of 12 * 16 * 16")]


def counts(dim, depth, hidden, settings):
    return 2 * dim * hidden + depth * (4 + 4 + 4) * hidden**2, 0


class Model(Plain):
    def linear(self, name, x):
        i, role = name.split(".")[1], name.split(".")[-1]
        return super().linear(name, x) + self.scale * self.change(i, role, x)

    def change(self, i, role, x):
        r = self.hidden
        u, v = self.tensors[f"width{self.dim}.down"], self.tensors[f"width{self.dim}.up"]
        chunks = [self.core(int(i), role, x_c @ u.T, c) for c, x_c in enumerate(x.split(self.dim, -1))]
        hidden = sum(chunks)
        return torch.cat([h @ v.T for h in hidden.split(r, -1)], -1)

    def core(self, i, role, h, chunk):
        """Return what one chunk of the inputs, reduced to r numbers, adds to the numbers before V."""
        r = self.hidden
        if role == "qkv":
            return torch.cat([h @ self.tensors[f"{i}.{part}"].T for part in "qkv"], -1)
        matrix = self.tensors[f"{i}.{role}"]
        return h @ (matrix[:, chunk * r : (chunk + 1) * r] if role == "fc2" else matrix).T
