"""What Hydra alone has: its kinds of biases, its merge, where it starts."""

import pytest
import torch

from petl_bench.adapters.base import merge
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny
from tests.test_methods import some_images

DIM = 48  # of tests.tiny.BACKBONE


def stirred_network(bits=32, **settings):
    adapted = assemble(tiny.model_spec("hydra", bits=bits, scale=0.5, **settings))
    generator = torch.Generator().manual_seed(0)
    attached = adapted.adapter.attached
    floats = [parameter for group in attached.floats.values() for parameter in group]
    with torch.no_grad():
        for weight in [*(m.weight for m in attached.matrices.values()), *floats]:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return adapted, adapted.network.eval()


@pytest.mark.parametrize("bias", ["full", "folded", "none"])
def test_each_kind_of_bias_merges(bias):
    _, network = stirred_network(bias=bias)
    with torch.no_grad():
        before = network(some_images())
        merge(network)
        assert type(network.blocks[0].mlp.fc2) is torch.nn.Linear
        torch.testing.assert_close(network(some_images()), before, rtol=1e-5, atol=1e-5)


def test_four_biases_fold_into_one():
    # The four biases of a site add s (U_p c_p + e_p + U_s c_s + e_s) to its output (docs/methods/hydra.md).
    full, network = stirred_network()
    folded, twin = stirred_network(bias="folded")
    twins = folded.adapter.attached
    with torch.no_grad():
        for name, matrix in full.adapter.attached.matrices.items():
            twins.matrices[name].weight.copy_(matrix.weight)
        for name, (c_p, e_p, c_s, e_s) in full.adapter.attached.floats.items():
            site = name.removesuffix(".bias")
            u_p, u_s = (twins.matrices[f"{site}.{side}.up"].weight for side in ("parallel", "sequential"))
            twins.floats[name][0].copy_(u_p @ c_p + e_p + u_s @ c_s + e_s)
        torch.testing.assert_close(twin(some_images()), network(some_images()), rtol=1e-5, atol=1e-5)


def test_another_bias_is_refused():
    with pytest.raises(UserError, match=r"bias must be one of full, folded, none, not 'half'"):
        assemble(tiny.model_spec("hydra", bias="half"))


def test_where_it_starts():
    # Repository extremebird/Hydra: P is Xavier-uniform, U and all biases are zero.
    attached = assemble(tiny.model_spec("hydra", bits=32, hidden=8)).adapter.attached
    shapes = {"0.proj.parallel": DIM, "0.fc2.parallel": 4 * DIM, "1.fc2.sequential": DIM}
    for name, inputs in shapes.items():
        bound = (6 / (8 + inputs)) ** 0.5
        down = attached.matrices[f"{name}.down"].weight
        assert tuple(down.shape) == (8, inputs)
        assert 0.95 * bound < down.abs().max() <= bound
        assert not attached.matrices[f"{name}.up"].weight.any()
    assert not any(bias.any() for group in attached.floats.values() for bias in group)
