"""Times of two ways to do the same work, in one process and by turns; and the peak of what they allocate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]

LEAST_SECONDS = 0.05
"""Work that takes less is repeated within a round until it takes so long."""


@dataclass(frozen=True)
class Figures:
    """What one measurement yields.

    Attributes:
        ratio: median over rounds of ours / reference; None where there is no reference.
        low, high: quartiles of the ratio over the rounds, of `seconds` where there is no ratio; the least and
            greatest of fewer than four rounds.
        seconds: ours, median.
        seconds_reference: the reference's, median.
        rounds: how often each side was timed.
        bytes, bytes_reference: greatest memory held at once beyond what was held before.
        note: the sizes it was taken at.
    """

    ratio: float | None
    low: float
    high: float
    seconds: float
    seconds_reference: float | None
    rounds: int
    bytes: int | None = None
    bytes_reference: int | None = None
    note: str = ""


def compare(ours: Work, reference: Work, device: str, rounds: int, note: str = "", steps: int = 1) -> Figures:
    """Both by turns, after warming up; who begins alternates from round to round.

    The ratio is that of each round, so that a load which comes and goes meets both sides.

    Args:
        steps: parts of equal work in one call; `seconds` are those of a part.
    """
    counts = {work: _repetitions(work, device) for work in (ours, reference)}
    taken: list[tuple[float, float]] = []
    for number in range(rounds):
        order = (ours, reference) if number % 2 == 0 else (reference, ours)
        found = {work: _seconds(work, device, counts[work]) for work in order}
        taken.append((found[ours] / steps, found[reference] / steps))
    return paired(taken, note)


def paired(taken: list[tuple[float, float]], note: str = "") -> Figures:
    """Figures of rounds, each the seconds of ours and of the reference."""
    ratios = [ours / reference for ours, reference in taken]
    seconds, reference = (median(side) for side in zip(*taken, strict=True))
    return Figures(median(ratios), *spread(ratios), seconds, reference, len(taken), note=note)


def alone(taken: list[float], note: str = "") -> Figures:
    """Figures of rounds of work that has no reference."""
    return Figures(None, *spread(taken), median(taken), None, len(taken), note=note)


def spread(values: list[float]) -> tuple[float, float]:
    """The quartiles, or the least and the greatest of fewer than four values."""
    if len(values) < 4:
        return min(values), max(values)
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def seconds_of(work: Work, device: str) -> float:
    """Wall time of one call, what it left running on the device included."""
    return _seconds(work, device, 1)


def _repetitions(work: Work, device: str) -> int:
    """How many calls make a round; the first call warms up and does not count."""
    work()
    return max(1, round(LEAST_SECONDS / max(_seconds(work, device, 1), 1e-6)))


def _seconds(work: Work, device: str, count: int) -> float:
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(count):
        work()
    synchronize(device)
    return (time.perf_counter() - begin) / count


def synchronize(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_bytes(work: Work, device: str) -> int:
    """The most memory that one call holds at once in tensors, beyond what was held before it.

    On the CPU that is the greatest running sum of the allocator's own events, temporary buffers inside
    operations included.
    """
    work()
    if device.startswith("cuda"):
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = greatest = 0
    for _, change in changes:
        held += change
        greatest = max(greatest, held)
    return greatest
