"""What is wrong with a store, and setting it aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from petl_bench.store import Store
from petl_bench.store.check.run import DAMAGE, NOTES, Problem, Run

__all__ = ["DAMAGE", "NOTES", "Busy", "CheckResult", "Problem", "Run", "check", "nobody", "repair"]

Busy = Callable[[str], bool]
"""Whether someone is at work on a run."""


@dataclass
class CheckResult:
    """What a check found: directories of runs and their problems."""

    runs: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def damage(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind in DAMAGE]


def nobody(run_id: str) -> bool:
    """No run is being worked on."""
    return False


def check(store: Store, progress: Callable[[int], object], busy: Busy = nobody) -> CheckResult:
    """Look at all of a store.

    Args:
        progress: told of one more name of `store.names()`.

    Raises:
        UserError: there is no such store, or it cannot be read.
    """
    report = CheckResult()
    for name in store.names():
        run = Run(store, name)
        if busy(name):
            run.say("busy", "", NOTES["busy"])
        else:
            run.examine()
        report.problems += run.problems
        report.runs += all(problem.kind != "foreign" for problem in run.problems)
        progress(1)
    return report


def repair(store: Store, report: CheckResult, busy: Busy = nobody) -> dict[str, str]:
    """Set damaged runs aside, and litter of the others: run_id -> where the run or its litter is now.

    Runs that someone is at work on stay, and those that are not ours to read.

    Raises:
        StoreError: the store cannot be written.
    """
    runs: dict[str, list[Problem]] = {}
    for problem in report.damage:
        runs.setdefault(problem.run_id, []).append(problem)
    moved = {}
    for name, problems in runs.items():
        kinds = {problem.kind for problem in problems}
        if "forbidden" not in kinds and not busy(name):
            litter = [Path(problem.path).name for problem in problems] if kinds == {"litter"} else []
            moved[name] = str(store.set_aside(name, litter))
    return moved
