"""Tests, effect sizes and intervals of paired differences.

Arrays have shape (comparisons, tasks). The caller rounds differences, so that equal ones are equal numbers.

Sources: Wilcoxon (1945) for the signed-rank test; Kerby (2014) for the matched-pairs rank-biserial
correlation; Efron (1987) for the BCa bootstrap; Holm (1979) for the adjustment of p-values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEVEL = 0.05
"""Significance level of every test; the confidence level of intervals is 1 - LEVEL."""
ROUGH = 10
"""Number of tasks below which bootstrap intervals are too narrow: with 5 tasks they cover 83 %."""

DECIMALS = 12
"""Decimals of accuracies as fractions, so that 0.831 - 0.832 and 0.841 - 0.842 are a tie."""


def _ranks(differences: Values) -> Values:
    """Return the ranks of absolute differences along the last axis, ties averaged, nan for zero."""
    from scipy.stats import rankdata

    sizes = np.where(differences == 0, np.nan, np.abs(differences))
    ranks: Values = rankdata(sizes, axis=-1, nan_policy="omit")
    return ranks


def effects(differences: Values) -> Values:
    """Return the matched-pairs rank-biserial correlation of each row.

    It is the rank sum of wins minus the rank sum of losses, divided by the sum of all ranks.

    Args:
        differences: shape (comparisons, tasks).

    Returns:
        Values from -1 to 1, shape (comparisons,).
    """
    ranks = _ranks(differences)
    signed: Values = np.nansum(np.sign(differences) * ranks, axis=1)
    return signed / np.maximum(np.nansum(ranks, axis=1), 1)


def signed_rank(differences: Values, alternative: str) -> Values:
    """Return the exact p-value of Wilcoxon's signed-rank test for each row; zeros are left out.

    SciPy's exact distribution assumes ranks without ties and zeros: with ties it can return 0.047 for 0.0625.
    Its `auto` is exact with ties for up to 13 tasks, but takes up to a second per row, and is approximate
    beyond.

    Args:
        differences: shape (comparisons, tasks).
        alternative: "two-sided", "greater" or "less" than zero.

    Returns:
        p-values, shape (comparisons,).
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
    """Return the exact p-value from the distribution of the rank sum when both signs are equally likely."""
    differences = differences[differences != 0]
    doubled = np.rint(2 * _ranks(differences)).astype(int)  # averaged ranks are multiples of 1/2
    chances = np.ones(1)  # probability of each doubled rank sum of gains
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
    """Adjust p-values by Holm's method, which controls the family-wise error rate.

    The k-th smallest of n p-values is multiplied by n - k + 1, and adjusted values never decrease.
    (statsmodels has this function, too, but takes longer to import than a whole report takes.)

    Args:
        p: p-values of one family, shape (comparisons,).

    Returns:
        Adjusted p-values in the same order.
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def intervals(differences: Values, confidence: float) -> tuple[Values, Values]:
    """Return BCa bootstrap confidence intervals of the mean of each row.

    All rows use the same resamples, so an interval does not depend on what else is compared. Where all
    differences of a row are equal, both ends are their mean.

    Args:
        differences: shape (comparisons, tasks).
        confidence: confidence level, for example 0.95.

    Returns:
        Lower and upper ends, each of shape (comparisons,).
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
