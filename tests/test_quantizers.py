"""Quantizers: forward, gradient, codes and stacks against plain references."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from petl_bench.errors import UserError
from petl_bench.quantizers import CODEBOOKS, FakeQuantize
from petl_bench.quantizers.base import Bucketize
from tests.reference import codebook
from tests.reference.quantize import closed_form_gradient, fake_quantize, fake_quantize_span

BITS = range(1, 9)
REFERENCES = {"l1_median": codebook.l1_median, "lloyd_max": codebook.lloyd_max}


def levels_of(name, bits):
    return CODEBOOKS.get(name).levels(bits)


def random_weight(seed, shape=(24, 40), scale=0.05, mean=0.01):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator) + mean


def reference_forward(name, weight, bits):
    """The reference's own levels and its own standardization."""
    if name == "minmax":
        return fake_quantize_span(weight, torch.linspace(0, 1, 2**bits, dtype=torch.float64))
    return fake_quantize(weight, torch.from_numpy(REFERENCES[name](bits)))


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=40, unique=True),
    st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=40),
    st.sampled_from([1.0, 1e-3, 1e-20]),
)
@example([0.0, float(np.finfo(np.float32).tiny)], [0.0, 1.0], 1e-3)  # 2 / distance is no float32
def test_thresholds_are_counted_however_close_they_are(thresholds, values, closeness):
    close = np.unique(np.array([*thresholds, *(closeness * np.array(thresholds))], np.float32))
    z = np.array([*values, *thresholds], np.float32)
    found = Bucketize(torch.from_numpy(close))(torch.from_numpy(z))
    # A value that equals a threshold is not above it.
    np.testing.assert_array_equal(found, np.searchsorted(close, z, side="left"))


def test_minmax_quantizes_a_small_tensor_as_by_hand():
    weight = torch.tensor([[-1.0, -0.4, 0.1, 2.0]])
    # Least -1, span 3, 2 bits: levels -1, 0, 1, 2; midpoints -0.5, 0.5, 1.5.
    expected = torch.tensor([[-1.0, 0.0, 0.0, 2.0]])
    torch.testing.assert_close(FakeQuantize("minmax", 2)(weight), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(CODEBOOKS))
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_every_codebook_maps_to_a_nearest_level(name, bits):
    quantizer = FakeQuantize(name, bits)
    weight = random_weight(seed=bits)
    z, mean, std = quantizer.standardize(weight)
    distance = (z.flatten()[:, None] - torch.from_numpy(levels_of(name, bits)).float()).abs()
    quantized = ((quantizer(weight) - mean) / std - z).abs().flatten()
    torch.testing.assert_close(quantized, distance.min(1).values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["l1_median", "lloyd_max", "minmax"])
@pytest.mark.sampled(4)
def test_forward_and_gradient_equal_the_detach_trick(name, bits):
    weight = random_weight(seed=10 + bits).requires_grad_()
    twin = weight.detach().clone().requires_grad_()
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(20 + bits))
    found, expected = FakeQuantize(name, bits)(weight), reference_forward(name, twin, bits)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    found.backward(upstream)
    expected.backward(upstream)
    assert relative(weight.grad, twin.grad) <= 1e-5


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("scale", [0.05, 2e-5])  # at 2e-5 the epsilon of 1e-5 takes a third of the gradient
def test_gradient_equals_the_closed_form(name, bits, scale):
    weight = random_weight(seed=30 + bits, scale=scale, mean=scale / 5).requires_grad_()
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(40 + bits)) + 0.3
    FakeQuantize(name, bits)(weight).backward(upstream)
    levels = torch.from_numpy(REFERENCES[name](bits))
    expected = closed_form_gradient(weight.detach(), upstream, levels)
    assert relative(weight.grad.double(), expected) <= 1e-5


tensors = st.builds(
    lambda shape, scale, mean, seed: random_weight(seed, shape, scale, mean),
    st.tuples(st.integers(1, 12), st.integers(2, 30)),
    st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    st.floats(-2, 2, width=32),
    st.integers(0, 2**32),
)


@pytest.mark.parametrize("name", list(CODEBOOKS))
@given(weight=tensors, bits=st.integers(1, 8))
def test_decode_of_encode_is_the_forward(name, weight, bits):
    quantizer = FakeQuantize(name, bits)
    codes, mean, std = quantizer.encode(weight)
    assert codes.dtype == torch.uint8
    assert codes.shape == weight.shape
    decoded = quantizer.decode(codes, mean, std)
    # 1e-6 of the greatest weight: float32 rounds at 6e-8 of it.
    atol = 1e-6 * max(1.0, weight.abs().max().item())
    torch.testing.assert_close(decoded, quantizer(weight), rtol=0, atol=atol)
    assert decoded.unique().numel() <= 2**bits
    assert int(codes.max()) < 2**bits


@pytest.mark.parametrize("name", ["l1_median", "lloyd_max", "minmax"])
@given(weight=tensors, bits=st.integers(1, 8))
def test_forward_equals_the_reference(name, weight, bits):
    found, expected = FakeQuantize(name, bits)(weight), reference_forward(name, weight, bits)
    clear = clear_of_thresholds(name, weight, bits)
    assume(clear.any())
    atol = 1e-6 * max(1.0, weight.abs().max().item())
    torch.testing.assert_close(found[clear], expected[clear], rtol=0, atol=atol)


def clear_of_thresholds(name, weight, bits):
    """Where float32's rounding of mean and weight cannot move z into the next cell: the mean of values near
    2 is known to about 2.4e-7, and z to that over the std; two right implementations may differ there."""
    w = weight.double()
    mean, std = (w.min(), w.max() - w.min()) if name == "minmax" else (w.mean(), w.std())
    levels = torch.linspace(0, 1, 2**bits).double() if name == "minmax" else REFERENCES[name](bits)
    levels = torch.as_tensor(levels)
    z = (w - mean) / (std + 1e-5)
    distance = (z.unsqueeze(-1) - (levels[1:] + levels[:-1]) / 2).abs().amin(-1)
    return distance > 8 * torch.finfo(torch.float32).eps * w.abs().max() / (std + 1e-5) + 1e-5


@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_a_reordered_weight_is_quantized_to_the_reordered_result(name):
    # Cells depend on the tensor's statistics only, so a permutation commutes with quantization.
    weight = random_weight(seed=50).view(1, -1)
    order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(0))
    quantizer = FakeQuantize(name, 3)
    torch.testing.assert_close(quantizer(weight[:, order]), quantizer(weight)[:, order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_cells_are_those_of_bucketize_to_the_last_bit(name, bits):
    quantizer = FakeQuantize(name, bits)
    edges = quantizer.thresholds
    infinity = torch.tensor(torch.inf)
    beside = [torch.nextafter(edges, infinity), torch.nextafter(edges, -infinity)]
    far = torch.tensor([-torch.inf, -1e30, -1e4, -0.0, 0.0, 1e4, 1e30, torch.inf])
    wide = torch.randn(100_000, generator=torch.Generator().manual_seed(bits)) * 2
    z = torch.cat([edges, *beside, far, wide])
    assert torch.equal(quantizer.bucketize(z), torch.bucketize(z, edges).int())
    assert quantizer.bucketize(z[:8].view(2, 2, 2)).shape == (2, 2, 2)


def test_what_is_not_a_number_stays_so_through_the_quantizer():
    weight = random_weight(seed=1)
    weight[0, 0] = torch.nan
    for bits in (1, 8):
        assert FakeQuantize("l1_median", bits)(weight).isnan().all()


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_a_stack_is_quantized_matrix_by_matrix(name, bits):
    weights = [random_weight(seed=60 + k, scale=0.01 * (k + 1), mean=0.1 * k) for k in range(3)]
    stack = torch.stack(weights).requires_grad_()
    upstream = torch.randn(stack.shape, generator=torch.Generator().manual_seed(1))
    quantizer = FakeQuantize(name, bits)
    found = quantizer(stack)
    found.backward(upstream)
    codes, means, stds = quantizer.encode(stack)
    for k, weight in enumerate(weights):
        twin = weight.clone().requires_grad_()
        alone = quantizer(twin)
        alone.backward(upstream[k])
        torch.testing.assert_close(found[k], alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(stack.grad[k], twin.grad, rtol=1e-4, atol=1e-6)
        own, mean, std = quantizer.encode(weight)
        assert torch.equal(codes[k], own)
        torch.testing.assert_close(torch.stack([means[k], stds[k]]), torch.stack([mean, std]))


@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_quantizer_buffers_are_not_saved(name):
    # A codebook is rebuilt from its name and bits, so that no state dict and no file carries it.
    assert FakeQuantize(name, 8).state_dict() == {}


@pytest.mark.parametrize("bits", [0, 9, -1, 32])
@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_bits_out_of_range_are_refused(name, bits):
    with pytest.raises(UserError, match=f"bits={bits}"):
        FakeQuantize(name, bits)


@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_misspelt_name_offers_the_right_one(name):
    with pytest.raises(UserError, match=f"did you mean.*{name}"):
        FakeQuantize(name[:-1], 1)
