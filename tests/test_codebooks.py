"""Codebooks: published tables, plain iterations, conditions of the best, and levels of every codebook."""

import numpy as np
import pytest
from scipy.stats import norm

from petl_bench.quantizers import CODEBOOKS, FakeQuantize
from tests.reference import codebook, released
from tests.test_quantizers import BITS, REFERENCES, levels_of

# Codebooks of arXiv 2307.16867, solved to convergence: positive halves, thresholds from 0 on.
TABLE_LEVELS = {
    1: [0.674490],
    2: [0.377754, 1.265720],
    3: [0.202624, 0.625420, 1.113729, 1.792025],
    4: [0.105550, 0.319036, 0.540072, 0.775192, 1.034006, 1.333107, 1.707738, 2.265491],
}
TABLE_THRESHOLDS = {
    1: [0.0],
    2: [0.0, 0.821737],
    3: [0.0, 0.414022, 0.869574, 1.452877],
    4: [0.0, 0.212293, 0.429554, 0.657632, 0.904599, 1.183556, 1.520422, 1.986614],
}

# J. Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6 (1960), table I: positive halves of
# levels and thresholds for 2, 4 and 8 levels, and the mean squared error, to the digits printed there.
MAX_LEVELS = {1: [0.7980], 2: [0.4528, 1.510], 3: [0.2451, 0.7560, 1.344, 2.152]}
MAX_THRESHOLDS = {1: [0.0], 2: [0.0, 0.9816], 3: [0.0, 0.5006, 1.050, 1.748]}
MAX_ERRORS = {1: 0.3634, 2: 0.1175, 3: 0.03454}


@pytest.mark.parametrize("bits", TABLE_LEVELS)
def test_l1_median_is_the_published_table(bits):
    half = 2 ** (bits - 1)
    found = levels_of("l1_median", bits)
    # 1e-6: the table has six decimals.
    np.testing.assert_allclose(found[half:], TABLE_LEVELS[bits], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[:half], -np.array(TABLE_LEVELS[bits])[::-1], rtol=0, atol=1e-6)
    thresholds = FakeQuantize("l1_median", bits).thresholds.numpy()
    np.testing.assert_allclose(thresholds[half - 1 :], TABLE_THRESHOLDS[bits], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.sampled(each=1)
def test_levels_agree_with_plain_fixed_point_iteration(name, bits):
    np.testing.assert_allclose(levels_of(name, bits), REFERENCES[name](bits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_l1_median_levels_are_the_medians_of_their_cells(bits):
    levels = levels_of("l1_median", bits)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    cdf = norm.cdf(edges)
    np.testing.assert_allclose(norm.ppf((cdf[1:] + cdf[:-1]) / 2), levels, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bits", BITS)
def test_lloyd_max_levels_are_the_means_of_their_cells(bits):
    levels = levels_of("lloyd_max", bits)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    # Negative half only: norm.cdf loses its relative precision in the upper tail.
    half = 2 ** (bits - 1)
    means = -np.diff(norm.pdf(edges[: half + 1])) / np.diff(norm.cdf(edges[: half + 1]))
    np.testing.assert_allclose(means, levels[:half], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(levels, -levels[::-1])


@pytest.mark.parametrize("bits", MAX_LEVELS)
def test_lloyd_max_is_the_published_quantizer_of_max(bits):
    levels, half = levels_of("lloyd_max", bits), 2 ** (bits - 1)
    # 5e-4 relative: Max prints four digits.
    np.testing.assert_allclose(levels[half:], MAX_LEVELS[bits], rtol=5e-4)
    thresholds = FakeQuantize("lloyd_max", bits).thresholds.numpy()
    np.testing.assert_allclose(thresholds[half - 1 :], MAX_THRESHOLDS[bits], rtol=5e-4, atol=1e-7)
    assert codebook.expected_error(levels, 2) == pytest.approx(MAX_ERRORS[bits], rel=5e-4)


def test_l1_error_at_8_bits_is_that_of_the_converged_codebook():
    # The expected absolute error is 0.0049 at convergence; the released code's codebook has 0.0223.
    assert codebook.expected_error(levels_of("l1_median", 8), 1) == pytest.approx(0.0049, abs=5e-5)


@pytest.mark.parametrize("bits", BITS)
def test_the_released_codebook_is_that_of_500_updates(bits):
    levels = levels_of("l1_median_500", bits)
    np.testing.assert_array_equal(levels.astype(np.float32), released.codebook(bits))
    if bits <= 4:
        np.testing.assert_allclose(levels, levels_of("l1_median", bits), rtol=0, atol=1e-7)


def test_the_released_codebook_at_8_bits_is_far_from_converged():
    levels = levels_of("l1_median_500", 8)
    # Counted and integrated from the released code's own levels.
    assert (np.abs(levels) < 1e-3).sum() == 148
    assert codebook.expected_error(levels, 1) == pytest.approx(0.0223, abs=5e-5)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.sampled(3)
def test_each_codebook_is_best_by_its_own_error(bits):
    # By definition: l1_median is the L1 optimum, lloyd_max the L2 optimum; at 1 bit too, but more narrowly.
    median, lloyd = levels_of("l1_median", bits), levels_of("lloyd_max", bits)
    assert codebook.expected_error(median, 1) < codebook.expected_error(lloyd, 1)
    assert codebook.expected_error(lloyd, 2) < codebook.expected_error(median, 2)


@pytest.mark.parametrize("bits", BITS)
def test_minmax_levels_span_the_unit_interval_evenly(bits):
    # Definition of a uniform quantizer: level i at i / (2**bits - 1).
    count = 2**bits
    expected = [i / (count - 1) for i in range(count)]
    np.testing.assert_allclose(levels_of("minmax", bits), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", list(CODEBOOKS))
@pytest.mark.parametrize("bits", BITS)
def test_every_codebook_has_2_to_the_bits_ascending_levels(name, bits):
    levels = levels_of(name, bits)
    assert levels.shape == (2**bits,)
    assert levels.dtype == np.float64
    assert (np.diff(levels) > 0).all()
