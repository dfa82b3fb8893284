"""FacT-TK (arXiv 2212.03145; repository JieShibo/PETL-ViT, folder FacT): FacT-TT with cores from K = C P."""

import torch

from tests.reference.methods import fact_tt

STATED = [(32, {}, 86_528, "2 * 768 * 32 + 32 ** 3 + 32 * 144")]


def counts(dim, depth, hidden, settings):
    return 2 * dim * hidden + hidden**3 + hidden * 12 * depth, 0


class Model(fact_tt.Model):
    def core(self, i, role, h, chunk):
        r = self.hidden
        c = self.tensors[f"width{self.dim}.c"].reshape(r, r, r)
        p = self.tensors[f"width{self.dim}.p"]
        k = torch.einsum("abc,ck->abk", c, p)[:, :, 12 * i : 12 * (i + 1)]
        if role == "qkv":
            return torch.cat([h @ k[:, :, n] for n in range(3)], -1)  # V K^T U x
        if role == "proj":
            return h @ k[:, :, 3]
        m = k[:, :, 4:8] if role == "fc1" else k[:, :, 8:12]
        m = m.reshape(r, 4 * r)  # row-major, so chunk g is not slice g
        return h @ m if role == "fc1" else h @ m[:, chunk * r : (chunk + 1) * r].T
