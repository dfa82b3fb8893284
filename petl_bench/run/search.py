"""Search of protocol `sealed` for the candidate with the best accuracy on val.

Candidates are trained in full, or by successive halving.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from petl_bench.types import COMPRESSIONS, RunSpec

KEPT_FRACTION = 1 / 2
"""Fraction of the candidates of a rung that enter the next one; their number is rounded up."""

Trial = dict[str, float | None]
"""Training of one candidate: scale, lr, epochs and acc_val, which is None if the training diverged."""

Model = TypeVar("Model")
logger = logging.getLogger("petl_bench")


@dataclass(frozen=True)
class SearchResult(Generic[Model]):
    """The winner of a search. If there is only one candidate, there are no trials.

    Attributes:
        spec: the winning candidate.
        trials: all trainings of the search, in order.
        acc_val: accuracy of the winner on val, in its last trial.
        model: model that this trial returned; None if it returned none.
        seconds: seconds of the search, without the training of `model`.
    """

    spec: RunSpec
    trials: list[Trial] = field(default_factory=list)
    acc_val: float | None = None
    model: Model | None = None
    seconds: float = 0.0


def trainings(spec: RunSpec) -> list[int]:
    """Return the epochs of each training of a run: those of its search, then that of the winner.

    The winner of a few-shot set is not trained again, since it would use the same images. Compression trains
    once, without val, if there is something to choose.
    """
    if spec.compressed:
        known = COMPRESSIONS[spec.compress].candidates(spec.kept, spec.strength)
        return [spec.train.epochs] if len(known) > 1 and not spec.task.shots else []
    candidates, found = len(spec.candidates), []
    for share in spec.protocol.rungs or [1.0]:
        if candidates == 1:
            break
        found += [round(share * spec.train.epochs)] * candidates
        candidates = math.ceil(KEPT_FRACTION * candidates)
    reused = spec.task.shots and spec.train.epochs in found[-1:]
    return found if reused else [*found, spec.train.epochs]


def search(
    spec: RunSpec, attempt: Callable[[RunSpec], tuple[float | None, Model | None]]
) -> SearchResult[Model] | None:
    """Train all candidates of a run, and return the best.

    With `protocol.rungs`, all candidates are trained for the first share of the epochs, the better half of
    them for the second share, and so on. The best candidate of the last rung wins; ties are resolved in favor
    of the smaller scale, then the smaller learning rate. A candidate that diverges is dropped.

    Args:
        spec: the run.
        attempt: function that trains a candidate and returns its accuracy on val, None if it diverges, and
            the model to keep, if any.

    Returns:
        The result, or None if all candidates of a rung diverge.
    """
    candidates = spec.candidates
    trials: list[Trial] = []
    result: SearchResult[Model] | None = SearchResult(candidates[0])
    for share in spec.protocol.rungs or [1.0]:
        if len(candidates) == 1:
            break
        result, best, accuracies = None, -1.0, {}
        for number, candidate in enumerate(candidates):
            shortened = candidate.shortened(share)
            accuracy, model = attempt(shortened)
            rate, epochs = shortened.train.lr, shortened.train.epochs
            trials.append({"scale": shortened.scale, "lr": rate, "epochs": epochs, "acc_val": accuracy})
            logger.info("scale %s, lr %s, epochs %s: acc on val %s", shortened.scale, rate, epochs, accuracy)
            if accuracy is None:
                continue
            accuracies[number] = accuracy
            if accuracy > best:
                result, best = SearchResult(candidate, trials, accuracy, model), accuracy
        ranked = sorted(accuracies, key=lambda number: -accuracies[number])
        kept = sorted(ranked[: math.ceil(KEPT_FRACTION * len(candidates))])
        candidates = [candidates[number] for number in kept]
    return result
