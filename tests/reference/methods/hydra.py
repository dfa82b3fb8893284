"""Hydra (arXiv 2309.06922; repository extremebird/Hydra, folder vtab1k) on proj and fc2.

One low-rank pair is parallel to the linear and one is sequential, on its output.
"""

from tests.reference.plain import Plain

STATED = [
    (2, {}, 239_712, "12 blocks of (4 + 7) * 768 * 2 weights and 2 * 2 * (2 + 768) biases"),
    (2, {"bias": "folded"}, 202_752 + 18_432, "the same weights, one vector of 768 per linear"),
    (2, {"bias": "none"}, 202_752, "the same weights alone"),
]


def counts(dim, depth, hidden, settings):
    floats = {"full": 2 * (hidden + dim), "folded": dim, "none": 0}[settings["bias"]]
    return depth * ((4 * dim) + (4 + 3) * dim) * hidden, depth * 2 * floats


class Model(Plain):
    def linear(self, name, x):
        y = super().linear(name, x)
        i, role = name.split(".")[1], name.split(".")[-1]
        if role not in ("proj", "fc2"):
            return y
        c_p, e_p, c_s, e_s = self.biases(f"{i}.{role}")
        beside, behind = (
            (self.tensors[f"{i}.{role}.{side}.down"], self.tensors[f"{i}.{role}.{side}.up"])
            for side in ("parallel", "sequential")
        )
        y_p = (x @ beside[0].T + c_p) @ beside[1].T + e_p
        y_s = (y @ behind[0].T + c_s) @ behind[1].T + e_s
        return y + self.scale * y_p + self.scale * y_s

    def biases(self, site):
        kind = self.settings["bias"]
        if kind == "full":
            return self.tensors[f"{site}.bias"]
        return 0, self.tensors[f"{site}.bias"][0] if kind == "folded" else 0, 0, 0
