"""Sketched deltas: the codes, their bytes and their gradient."""

import pytest
import torch
from torch import nn

from petl_bench import adapters
from petl_bench.adapters import Shape
from petl_bench.adapters.sketch import SketchedDelta, quantile_codes
from petl_bench.backbones import families
from petl_bench.errors import UserError
from tests import tiny


def test_codes_are_the_quantiles_of_each_group_of_a_row():
    weight = torch.tensor([[4.0, 1.0, 3.0, 2.0, -1.0, -1.0, 0.0, 5.0]])
    assert quantile_codes(weight, 2, 1).tolist() == [[[1, 0, 1, 1, 0, 0, 0, 1]]]
    # Quarters of each half; equal weights share the upper of their quantiles.
    assert quantile_codes(weight, 4, 2).tolist() == [[[3, 0, 2, 1], [1, 1, 2, 3]]]


def test_quantiles_have_equal_numbers_of_weights():
    codes = quantile_codes(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), 16, 2)
    assert codes.dtype == torch.uint8
    for group in codes.flatten(0, 1):
        assert group.bincount(minlength=16).tolist() == [2] * 16


def delta(dtype=torch.float32):
    grid = nn.Linear(8, 5, bias=False, dtype=dtype)
    made = SketchedDelta(
        grid, torch.randint(4, (5, 2, 30), generator=torch.Generator().manual_seed(1)).byte()
    )
    return grid, made


def test_the_gradient_of_a_value_is_the_sum_over_its_weights():
    grid, made = delta(torch.float64)
    weights = torch.randn(5, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (made.product() * weights).sum().backward()
    for row in range(5):
        for group in range(2):
            for level in range(4):
                chosen = made.codes[row, group] == level
                expected = weights[row, 30 * group : 30 * group + 30][chosen].sum()
                torch.testing.assert_close(grid.weight.grad[row, 4 * group + level], expected)


def test_the_gradient_is_summed_in_float32_where_the_grid_is_in_bfloat16():
    grid = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    made = SketchedDelta(grid, torch.zeros(1, 1, 1000, dtype=torch.uint8))
    made.product().sum().backward()
    # In bfloat16 a count by ones ends at 256.
    assert grid.weight.grad.tolist() == [[1000.0, 0.0]]


def test_nothing_but_bytes_is_kept_for_the_gradient():
    _, made = delta()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made.product()
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.uint8, 5 * 60)]


def test_codes_are_neither_trained_nor_stored():
    network, sites = families.build(tiny.BACKBONE)
    before = set(network.state_dict())
    attached = adapters.attach("sketch", {}, sites, Shape(16, 1.0, False))
    assert not attached.codes
    assert not any("codes" in name for name in network.state_dict())
    assert len(set(network.state_dict())) == len(before) + len(attached.matrices)


@pytest.mark.parametrize(
    ("hidden", "groups", "what"), [(1, 1, "hidden"), (257, 1, "hidden"), (4, 0, "groups"), (4, 5, "groups")]
)
def test_what_cannot_be_split_is_refused(hidden, groups, what):
    _, sites = families.build(tiny.BACKBONE)
    with pytest.raises(UserError, match=what):
        adapters.attach("sketch", {"groups": groups}, sites, Shape(hidden, 1.0, False))
