"""The tasks of a suite, and names for a part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from petl_bench.types import Manifest

MOST = 4
"""Largest number of tasks that a name of a part lists."""


@dataclass(frozen=True)
class Task:
    """A task and the group of tasks that it belongs to."""

    name: str
    group: str


def suite_tasks(suite: str, runs: pd.DataFrame, known: Mapping[str, Manifest]) -> list[Task]:
    """Return all tasks of a suite in the benchmark's order; of an unknown suite, the tasks that were run.

    Args:
        suite: name of the suite.
        runs: runs on tasks of the suite.
        known: all known tasks by name.
    """
    facts = [m for m in known.values() if m.suite == suite and m.classes]
    if not facts:
        last = runs.sort_values("finished_at").drop_duplicates("task", keep="last")
        by_group = sorted(zip(last["group"], last["task"], strict=True))
        return [Task(name, group) for group, name in by_group]
    facts.sort(key=lambda m: (m.group, m.position or len(known), m.name))
    return [Task(m.name, m.group) for m in facts]


def part_name(suite: str, held: Sequence[Task], lacking: Sequence[Task]) -> str:
    """Return the name of a part of a suite, `2 of 5 tasks: digits, surfaces`; empty for a whole suite.

    Args:
        suite: name of the suite, which the names of its tasks may begin with.
        held: tasks of the part.
        lacking: all other tasks of the suite.
    """
    if not lacking:
        return ""
    name = f"{len(held)} of {len(held) + len(lacking)} tasks"
    if len(held) <= MOST:
        return f"{name}: {_names(suite, held)}"
    return f"{name}, without {_names(suite, lacking)}" if len(lacking) <= MOST else name


def _names(suite: str, tasks: Sequence[Task]) -> str:
    return ", ".join(task.name.removeprefix(f"{suite}_") for task in tasks)
