"""Alternating timings of two implementations of the same work in one process, and their peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]

LEAST_SECONDS = 0.05
"""Smallest duration of a timing; shorter work is repeated within a round."""


@dataclass(frozen=True)
class Timing:
    """Result of timing this implementation and, where there is one, its reference.

    Attributes:
        ratio: median over rounds of ours / reference; None without a reference.
        low, high: quartiles over rounds of the ratio, or of `seconds` without a ratio; minimum and maximum
            for fewer than four rounds.
        seconds: median duration of this implementation.
        seconds_reference: median duration of the reference.
        rounds: number of timings of each side.
        bytes, bytes_reference: peak memory of each side beyond what was allocated before.
        note: sizes at which the timings were taken.
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


def compare(ours: Work, reference: Work, device: str, rounds: int, note: str = "", steps: int = 1) -> Timing:
    """Time two functions alternately after a warm-up; the one that begins changes from round to round.

    The ratio is computed in each round, so that a temporary load of the machine affects both sides.

    Args:
        ours: work of this implementation.
        reference: the same work of the reference.
        device: device whose queue is awaited before each reading of the clock.
        rounds: number of timings of each side.
        note: sizes at which the timings are taken.
        steps: number of equal parts in one call; durations are those of one part.
    """
    counts = {work: _repetitions(work, device) for work in (ours, reference)}
    taken: list[tuple[float, float]] = []
    for number in range(rounds):
        order = (ours, reference) if number % 2 == 0 else (reference, ours)
        found = {work: _seconds(work, device, counts[work]) for work in order}
        taken.append((found[ours] / steps, found[reference] / steps))
    return paired(taken, note)


def paired(taken: list[tuple[float, float]], note: str = "") -> Timing:
    """Summarize rounds, each with the seconds of this implementation and of the reference."""
    ratios = [ours / reference for ours, reference in taken]
    seconds, reference = (median(side) for side in zip(*taken, strict=True))
    return Timing(median(ratios), *quartiles(ratios), seconds, reference, len(taken), note=note)


def alone(taken: list[float], note: str = "") -> Timing:
    """Summarize rounds of work without a reference, each in seconds."""
    return Timing(None, *quartiles(taken), median(taken), None, len(taken), note=note)


def quartiles(values: list[float]) -> tuple[float, float]:
    """Return the lower and upper quartile; minimum and maximum for fewer than four values."""
    if len(values) < 4:
        return min(values), max(values)
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def seconds_of(work: Work, device: str) -> float:
    """Return the wall time of one call in seconds, with the work that it leaves running on the device."""
    return _seconds(work, device, 1)


def _repetitions(work: Work, device: str) -> int:
    """Return the number of calls per round; the first call is a warm-up and is not timed."""
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
    """Wait until the device has finished all queued work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_bytes(work: Work, device: str) -> int:
    """Return the peak memory of tensors during one call, in bytes, beyond what was allocated before.

    On the CPU it is the largest running sum of the allocator's events, which include temporary buffers inside
    operations.
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
