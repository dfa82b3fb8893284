"""Tests, effects and intervals of paired differences: arrays of comparisons by tasks.

Differences are rounded by the caller, so that equal ones are equal numbers.
Sources: Wilcoxon (1945) for the signed-rank test, Kerby (2014) for the matched-pairs rank-biserial
correlation, Efron (1987) for the BCa bootstrap, Holm (1979) for many tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEVEL = 0.05
"""Of every test; the interval's coverage is what is left to 1."""
ROUGH = 10
"""Tasks below which a bootstrap interval is too narrow: of 5 normal differences it covers 83 %."""

DECIMALS = 12
"""Of accuracies as fractions: 0.831 - 0.832 and 0.841 - 0.842 are a tie, although not as binary numbers."""


def _ranks(differences: Values) -> Values:
    """Of absolute differences along the last axis, ties averaged; nan for no difference."""
    from scipy.stats import rankdata

    sizes = np.where(differences == 0, np.nan, np.abs(differences))
    ranks: Values = rankdata(sizes, axis=-1, nan_policy="omit")
    return ranks


def effects(differences: Values) -> Values:
    """Rank sum of wins minus rank sum of losses, as a part of all ranks."""
    ranks = _ranks(differences)
    signed: Values = np.nansum(np.sign(differences) * ranks, axis=1)
    return signed / np.maximum(np.nansum(ranks, axis=1), 1)


def signed_rank(differences: Values, alternative: str) -> Values:
    """Exact p-value of each row; differences of zero are left out.

    SciPy's exact distribution is of ranks without ties and zeros: with ties it can say 0.047 for 0.0625. Its
    `auto` is exact for them to 13 tasks, but takes up to a second a row, and is approximate beyond.

    Args:
        alternative: "two-sided", "greater" or "less" than zero.
    """
    from scipy.stats import wilcoxon

    sizes = np.sort(np.abs(differences), axis=1)
    plain = (sizes[:, 0] > 0) & (np.diff(sizes, axis=1) > 0).all(axis=1)
    p = np.empty(len(differences))
    if plain.any():
        tested = wilcoxon(differences[plain], axis=1, alternative=alternative, method="exact")
        p[plain] = tested.pvalue
    p[~plain] = [_with_ties(row, alternative) for row in differences[~plain]]
    return p


def _with_ties(differences: Values, alternative: str) -> float:
    """Exact p-value by the distribution of the rank sum where each sign is as likely as the other."""
    differences = differences[differences != 0]
    doubled = np.rint(2 * _ranks(differences)).astype(int)  # averaged ranks are halves
    chances = np.ones(1)  # of each doubled rank sum of gains
    for rank in doubled:
        grown = np.zeros(len(chances) + rank)
        grown[: len(chances)] = chances / 2
        grown[rank:] += chances / 2
        chances = grown
    reached = int(doubled[differences > 0].sum())
    less, greater = float(chances[: reached + 1].sum()), float(chances[reached:].sum())
    both = min(1.0, 2 * min(less, greater))
    return {"less": less, "greater": greater, "two-sided": both}[alternative]


def holm(p: Values) -> Values:
    """P-values adjusted so that a false finding anywhere among them is as rare as in a single test.

    The k-th smallest of n counts n - k + 1 times, and no adjusted one is below a smaller one's. (statsmodels
    has it too, and takes longer to load than a whole report takes.)
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def intervals(differences: Values, confidence: float) -> tuple[Values, Values]:
    """Ends of the interval of each row's mean; the mean itself where all differences are equal.

    All rows are resampled alike: what else is compared does not move an interval.
    """
    from scipy.stats import bootstrap

    low, high = differences.mean(axis=1), differences.mean(axis=1)
    varied = np.ptp(differences, axis=1) > 0
    if varied.any():
        # Whole numbers have the same sum in any order: BCa counts resamples whose mean equals the sample's.
        whole = np.rint(differences[varied] * 10**DECIMALS)
        interval = bootstrap(
            (whole,),
            np.mean,
            axis=1,
            confidence_level=confidence,
            method="BCa",
            batch=200,  # of 9,999: bounds memory
            rng=np.random.default_rng(0),
        ).confidence_interval
        low[varied], high[varied] = np.array(interval) / 10**DECIMALS
    return low, high
