"""What FacT alone has: sharing, its shapes, where it starts."""

import math

import pytest

from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny

DIM = 48  # of tests.tiny.BACKBONE


def matrices(name, family="VisionTransformer", bits=32, **settings):
    spec = tiny.model_spec(name, bits=bits, backbone=tiny.FAMILIES[family], **settings)
    return assemble(spec).adapter.attached.matrices


def shapes(found):
    return {name: tuple(matrix.weight.shape) for name, matrix in found.items()}


def test_tensor_train_shapes():
    # Repository JieShibo/PETL-ViT, folder FacT: S (r, r) for q, k, v, proj; (4r, r) for fc1; (r, 4r) for fc2;
    # U (r, D) and V (D, r) are common to all blocks.
    found = shapes(matrices("fact_tt", hidden=3))
    block = {"q": (3, 3), "k": (3, 3), "v": (3, 3), "proj": (3, 3), "fc1": (12, 3), "fc2": (3, 12)}
    blocks = {f"{i}.{role}": shape for i in (0, 1) for role, shape in block.items()}
    assert found == {f"width{DIM}.down": (3, DIM), f"width{DIM}.up": (DIM, 3)} | blocks


def test_tucker_shapes():
    found = shapes(matrices("fact_tk", hidden=3))
    shared = {"down": (3, DIM), "up": (DIM, 3), "c": (9, 3), "p": (3, 24)}  # 12 columns a block
    assert found == {f"width{DIM}.{role}": shape for role, shape in shared.items()}


def test_each_width_of_swin_has_its_own():
    # Stages of one block each, 16 and 32 wide.
    found = shapes(matrices("fact_tk", "SwinTransformer", hidden=3))
    assert found["width16.down"] == (3, 16)
    assert found["width32.down"] == (3, 32)
    assert found["width16.p"] == found["width32.p"] == (3, 12)


def test_convnext_has_cores_of_its_mlp_alone():
    # Stages 8, 16, 16, 16: the last three share; fc1 and fc2 have four slices each.
    assert shapes(matrices("fact_tk", "ConvNeXt", hidden=3))["width16.p"] == (3, 3 * 8)
    assert {name.split(".")[-1] for name in matrices("fact_tt", "ConvNeXt", hidden=3)} == {
        "down",
        "up",
        "fc1",
        "fc2",
    }


def test_where_it_starts():
    # Xavier on the (r, r, r) tensor: fans r * r, bound sqrt(6 / (2 r^2)) = sqrt(3) / r.
    found = matrices("fact_tk", hidden=16)
    c = found[f"width{DIM}.c"].weight
    assert 0.95 * math.sqrt(3) / 16 < c.abs().max() <= math.sqrt(3) / 16
    assert not found[f"width{DIM}.up"].weight.any()
    assert 0 < matrices("fact_tk", bits=1, hidden=16)[f"width{DIM}.up"].weight.abs().max() <= 2e-3
    core = matrices("fact_tt", hidden=16)["1.fc2"].weight  # Kaiming-uniform of a = sqrt(5): 1 / sqrt(inputs)
    assert 0.95 / 8 < core.abs().max() <= 1 / 8


@pytest.mark.parametrize("name", ["fact_tt", "fact_tk"])
def test_an_mlp_of_no_whole_widths_is_refused(name):
    backbone = tiny.BACKBONE.__class__(
        tiny.BACKBONE.name, "random", 32, {**tiny.BACKBONE.options, "mlp_ratio": 2.5}
    )
    with pytest.raises(UserError, match="choose another adapter or backbone"):
        assemble(tiny.model_spec(name, backbone=backbone))


@pytest.mark.parametrize("name", ["fact_tt", "fact_tk"])
def test_a_core_of_one_number_cannot_be_quantized(name):
    assemble(tiny.model_spec(name, bits=32, hidden=1))
    with pytest.raises(UserError, match="hidden=1: below 32 bits this adapter needs 2"):
        assemble(tiny.model_spec(name, bits=1, hidden=1))
