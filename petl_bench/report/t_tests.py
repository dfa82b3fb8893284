"""Two-sided t-tests and equivalence tests of mean differences, given their standard errors.

Sources: Student (1908) for the distribution; Schuirmann (1987) for equivalence by two one-sided tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petl_bench.report.paired import LEVEL, Values, holm


@dataclass(frozen=True)
class Tested:
    """A mean difference, judged by its standard error.

    Attributes:
        low, high: ends of the unadjusted 95 % interval of the mean difference, as fractions of 1.
        p: two-sided p-value of the hypothesis that there is no difference.
        p_holm: `p`, adjusted over all comparisons of the table.
        p_equivalence: larger p-value of the two one-sided tests against -margin and margin.
        p_equivalence_holm: `p_equivalence`, adjusted over all comparisons of the table.
        verdict: "better" or "worse", each also "within the margin"; "equivalent" or "undecided".
    """

    low: float
    high: float
    p: float
    p_holm: float
    p_equivalence: float
    p_equivalence_holm: float
    verdict: str


def tested(mean: Values, error: Values, freedom: Values, margin: float) -> list[Tested]:
    """Test mean differences. Differences and equivalences are two families of tests, each Holm-adjusted.

    Args:
        mean: mean differences, shape (comparisons,).
        error: their standard errors, all above 0, shape (comparisons,).
        freedom: degrees of freedom of the errors, shape (comparisons,).
        margin: largest difference that counts as equivalent, a fraction of 1.

    Returns:
        A result for each difference.
    """
    from scipy.stats import t

    half = t.ppf(1 - LEVEL / 2, freedom) * error
    p = 2 * t.sf(np.abs(mean) / error, freedom)
    above, below = t.sf((mean + margin) / error, freedom), t.cdf((mean - margin) / error, freedom)
    p_equivalence = np.maximum(above, below)
    columns = (mean - half, mean + half, p, holm(p), p_equivalence, holm(p_equivalence))
    rows = np.array(columns).T.tolist()
    return [
        Tested(low, high, p, p_holm, near, near_holm, _verdict(value, p_holm, near_holm))
        for value, (low, high, p, p_holm, near, near_holm) in zip(mean.tolist(), rows, strict=True)
    ]


def _verdict(difference: float, p: float, p_equivalence: float) -> str:
    near = p_equivalence < LEVEL
    if p >= LEVEL:
        return "equivalent" if near else "undecided"
    return ("better" if difference > 0 else "worse") + (" within the margin" if near else "")
