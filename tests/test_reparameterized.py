"""What RepAdapter alone has."""

import pytest
import torch

from petl_bench.adapters.base import merge
from petl_bench.adapters.repadapter import RepLinear
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny

DIM = 48  # of tests.tiny.BACKBONE


def test_repadapter_starts_at_xavier_and_zeros():
    # Repository luogen1996/RepAdapter: A is Xavier-uniform, B and all biases are zero.
    attached = assemble(tiny.model_spec("repadapter", bits=32, hidden=8)).adapter.attached
    down = attached.matrices["0.qkv.down"].weight
    bound = (6 / (8 + DIM)) ** 0.5
    assert 0.95 * bound < down.abs().max() <= bound
    assert not attached.matrices["1.fc1.up"].weight.any()
    assert not any(bias.any() for bias in attached.floats["1.fc1.bias"])


def test_repadapter_before_attention_alone():
    attached = assemble(tiny.model_spec("repadapter", attention_only=True)).adapter.attached
    assert list(attached.matrices) == [f"{i}.qkv.{part}" for i in (0, 1) for part in ("down", "up")]
    with pytest.raises(UserError, match=r"needs a linear 'qkv'.*choose another"):
        assemble(
            tiny.model_spec("repadapter", attention_only=True, backbone=tiny.FAMILIES["ConvNeXt"], hidden=2)
        )


def test_repadapter_wants_an_even_number_of_hidden_units():
    with pytest.raises(UserError, match="hidden=3"):
        assemble(tiny.model_spec("repadapter", hidden=3))


def test_repadapter_merges_into_a_linear_without_bias():
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 5, bias=False)
    biases = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in (4, 6)]
    down, up = torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(2, 6, bias=False)
    network = torch.nn.Sequential(RepLinear(linear, down, up, biases, 0.7, 0.0))
    x = torch.randn(3, 6, generator=generator)
    with torch.no_grad():
        expected = network(x)
        merge(network)
        assert type(network[0]) is torch.nn.Linear
        torch.testing.assert_close(network(x), expected)
