"""`petl-bench doctor`: what this machine offers to runs, and what to do where something is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from petl_bench.cli.common import print_json, say, say_within
from petl_bench.cli.options import JsonOption
from petl_bench.errors import counted

WIDTH = 80
"""Characters in a line, whatever the terminal has."""


def doctor(json: JsonOption = False) -> None:
    """Show what this machine offers to runs.

    The page has devices, precisions, memory, disk, data, caches, hub, Slurm and Ray. Each finding is fine, a
    hint, or a problem, and says what to do. No GPU is opened. The exit code is 1 if there is a problem.
    """
    from petl_bench.cli.machine import examined

    found = examined()
    if json:
        print_json("doctor/1", {"findings": [asdict(one) for one in found]})
    else:
        for one in found:
            say_within(WIDTH, f"{one.state:<8} {one.what:<10} {one.text}", indent=" " * 20)
            if one.advice:
                say_within(WIDTH, f"{'':<19} -> {one.advice}", indent=" " * 23)
        counts = Counter(one.state for one in found)
        say(f"{counted(counts['problem'], 'problem')}, {counted(counts['hint'], 'hint')}")
    if any(one.state == "problem" for one in found):
        import typer

        raise typer.Exit(1)
