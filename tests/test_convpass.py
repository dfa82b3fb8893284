"""What only Convpass has: the grid its convolutions are on, their starts, the drop path of its block."""

from dataclasses import replace

import pytest
import torch

from petl_bench import adapters
from petl_bench.adapters import Shape
from petl_bench.adapters.convpass import Convpass
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny
from tests.agreeing import check


def bypasses(backbone=tiny.BACKBONE, drop_path=0.0, **settings):
    adapted = assemble(tiny.model_spec("convpass", backbone=backbone, **settings), drop_path=drop_path)
    return [module for module in adapted.network.modules() if isinstance(module, Convpass)]


@pytest.mark.parametrize("sites", ["attention", "mlp"])
def test_one_branch_agrees_with_the_plain_reference(sites):
    check("convpass", sites=sites)


def test_registers_meet_the_centre_tap_and_no_patch():
    backbone = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | {"reg_tokens": 2})
    module = bypasses(backbone)[0]
    tokens = torch.randn(1, 3 + 16, 4)
    before = module.convolved(tokens)
    for index in range(3 + 16):
        changed = tokens.clone()
        changed[:, index] += 1
        with torch.no_grad():
            moved = (module.convolved(changed) - before).abs().sum(-1)[0].nonzero().flatten().tolist()
        if index < 3:
            assert moved == [index]
        else:  # the neighbours on the grid of 4 x 4
            row, column = divmod(index - 3, 4)
            near = [(r, c) for r in range(4) for c in range(4) if abs(r - row) <= 1 and abs(c - column) <= 1]
            assert moved == [3 + 4 * r + c for r, c in near]


def test_in_swin_both_branches_see_the_whole_image():
    # The MLP branch has its tokens in one row; the same map must come out as from rows and columns.
    module = bypasses(tiny.FAMILIES["SwinTransformer"])[0]
    tokens = torch.randn(2, 8, 8, 4)
    with torch.no_grad():
        on_grid, in_a_row = module.convolved(tokens), module.convolved(tokens.flatten(1, 2))
    torch.testing.assert_close(in_a_row, on_grid.flatten(1, 2), rtol=0, atol=0)


def test_an_identity_convolution_changes_nothing():
    module = bypasses(conv="identity", bits=32)[0]
    tokens = torch.randn(2, 17, 4)
    with torch.no_grad():
        torch.testing.assert_close(module.convolved(tokens), tokens, rtol=0, atol=0)


def test_the_convolution_starts_within_the_bound_of_its_fans():
    _, sites = families.build(tiny.BACKBONE)
    found = adapters.attach("convpass", {}, sites, Shape(8, 1.0, True)).matrices["0.mlp.conv"].weight
    bound = (6 / (9 * 8 + 9 * 8)) ** 0.5  # Glorot and Bengio: 9 taps times 8 channels, in and out
    assert 0.95 * bound < found.abs().max() <= bound


def test_its_drop_path_is_that_of_the_block():
    assert [module.rate for module in bypasses(drop_path=0.3)] == pytest.approx([0, 0, 0.3, 0.3])
    assert {module.rate for module in bypasses()} == {0.0}


def test_an_unknown_start_is_refused():
    with pytest.raises(UserError, match="conv must be one of xavier, identity"):
        bypasses(conv="zero")
