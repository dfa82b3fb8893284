"""Protocol `sealed`: the candidate that does best on val, by full trainings or by successive halving."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from petl_bench.types import RunSpec

KEPT = 1 / 2
"""Of the candidates of a rung, rounded up, those that go on to the next."""

Trial = dict[str, float | None]
"""One training of one candidate: scale, lr, epochs, acc_val; without accuracy where it diverged."""

Model = TypeVar("Model")
logger = logging.getLogger("petl_bench")


@dataclass(frozen=True)
class SearchResult(Generic[Model]):
    """The winner of a search; the spec itself and no trials where there is nothing to choose."""

    spec: RunSpec
    trials: list[Trial] = field(default_factory=list)
    acc_val: float | None = None
    """The winner's, in its last trial."""
    model: Model | None = None
    """What that trial left."""
    seconds: float = 0.0
    """Of the search, what made `model` not included."""


def search(
    spec: RunSpec, attempt: Callable[[RunSpec], tuple[float | None, Model | None]]
) -> SearchResult[Model] | None:
    """Attempt each candidate in full, or rung by rung (`protocol.rungs`): all in the first share of the
    epochs, the better half of them in the next, and so on.

    The best of the last rung wins; of equals the smaller scale, then the smaller rate. A candidate that
    diverges goes no further.

    Args:
        attempt: trains a candidate; returns its accuracy on val, None where it diverges, and what to keep.

    Returns:
        None where all candidates of a rung diverge.
    """
    candidates = spec.candidates
    trials: list[Trial] = []
    choice: SearchResult[Model] | None = SearchResult(candidates[0])
    for share in spec.protocol.rungs or [1.0]:
        if len(candidates) == 1:
            break
        choice, best, accuracies = None, -1.0, {}
        for number, candidate in enumerate(candidates):
            short = candidate.shortened(share)
            accuracy, model = attempt(short)
            rate, epochs = short.train.lr, short.train.epochs
            trials.append({"scale": short.scale, "lr": rate, "epochs": epochs, "acc_val": accuracy})
            logger.info("scale %s, lr %s, epochs %s: acc on val %s", short.scale, rate, epochs, accuracy)
            if accuracy is None:
                continue
            accuracies[number] = accuracy
            if accuracy > best:
                choice, best = SearchResult(candidate, trials, accuracy, model), accuracy
        ranked = sorted(accuracies, key=lambda number: -accuracies[number])
        going = sorted(ranked[: math.ceil(KEPT * len(candidates))])
        candidates = [candidates[number] for number in going]
    return choice
