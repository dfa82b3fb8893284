"""Check of a store: find damaged runs and set them aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from petl_bench.store import Store
from petl_bench.store.check.run import DAMAGE, NOTES, Others, Problem, Run

__all__ = ["DAMAGE", "NOTES", "Busy", "CheckResult", "Problem", "Run", "check", "nobody", "repair"]

Busy = Callable[[str], bool]
"""Function that returns whether a process is executing a run."""


@dataclass
class CheckResult:
    """Result of a check.

    Attributes:
        runs: number of runs.
        problems: their damage, and notes.
    """

    runs: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def damage(self) -> list[Problem]:
        """Problems other than notes."""
        return [problem for problem in self.problems if problem.kind in DAMAGE]


def nobody(run_id: str) -> bool:
    """Return False: no run is being executed."""
    return False


def check(
    store: Store, advance: Callable[[int], object], busy: Busy = nobody, others: Others | None = None
) -> CheckResult:
    """Check all runs of a store.

    Args:
        advance: called with 1 after each name of `store.names()`.
        busy: tells which runs are being executed; they are not examined.
        others: names what made a run and is another in this version; None: this is not looked at.

    Raises:
        UserError: the store does not exist or cannot be read.
    """
    result = CheckResult()
    for name in store.names():
        run = Run(store, name)
        if busy(name):
            run.add("busy", "", NOTES["busy"])
        else:
            run.examine(others)
        result.problems += run.problems
        result.runs += all(problem.kind != "foreign" for problem in run.problems)
        advance(1)
    return result


def repair(store: Store, result: CheckResult, busy: Busy = nobody) -> dict[str, str]:
    """Set damaged runs aside, and temporary files of undamaged runs.

    Runs that are being executed or that may not be read are left in place.

    Returns:
        The folder that the run or its files were moved to, by run_id.

    Raises:
        StoreError: the store cannot be written.
    """
    runs: dict[str, list[Problem]] = {}
    for problem in result.damage:
        runs.setdefault(problem.run_id, []).append(problem)
    moved = {}
    for name, problems in runs.items():
        kinds = {problem.kind for problem in problems}
        if "forbidden" not in kinds and not busy(name):
            litter = [Path(problem.path).name for problem in problems] if kinds == {"litter"} else []
            moved[name] = str(store.set_aside(name, litter))
    return moved
