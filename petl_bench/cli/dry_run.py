"""Output of `petl-bench sweep --dry-run`: the planned runs, and an estimate of their time and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from petl_bench.cli.common import duration, print_json, usable_rows
from petl_bench.cli.estimate import SHOWN_WHERE_VARIED, Costs, cell_of, kind_of
from petl_bench.errors import counted
from petl_bench.store import Store
from petl_bench.types import RunSpec


def print_plan(
    runs: Mapping[str, RunSpec],
    todo: Mapping[str, RunSpec],
    states: Mapping[str, str],
    store: Store,
    json: bool,
) -> None:
    """Print the numbers of runs by settings and state, and an estimate from finished runs.

    Args:
        runs: planned runs by run_id.
        todo: those of them to be executed.
        states: state of each run in the store.
        json: print one object per run instead.
    """
    rows = usable_rows(store) if store.root.is_dir() else []
    if json:
        for i, spec in runs.items():
            held = {"run_id": i, **cell_of(spec), "seed": spec.seed, "state": states[i], "to_do": i in todo}
            print_json(held)
        return
    cells = {i: cell_of(spec) for i, spec in runs.items()}
    same = {key for key in SHOWN_WHERE_VARIED if len({cell[key] for cell in cells.values()}) == 1}
    shown = [key for key in next(iter(cells.values())) if key not in same]
    numbers = ["runs", "done", "failed", *({"damaged"} & set(states.values())), "to do"]
    table = Table(*shown, *numbers)
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for i, cell in cells.items():
        counter = counts.setdefault(tuple(str(cell[key]) for key in shown), Counter())
        counter.update(["runs", states[i], *(["to do"] if i in todo else [])])
    for values, counter in counts.items():
        table.add_row(*values, *(str(counter[k]) for k in numbers))
    Console(width=160, highlight=False).print(table)
    print(f"{counted(len(runs), 'run')}, {len(todo)} to do")
    costs = Costs()
    for row in rows:
        costs.add(row)
    known = [cost for spec in todo.values() if (cost := costs.of(kind_of(spec))) is not None]
    if todo and not known:
        print("no estimate of time and bytes: the store holds no finished run of this kind")
    elif todo:
        seconds, size = sum(cost[0] for cost in known), sum(cost[1] for cost in known)
        print(f"estimate from finished runs: {duration(seconds)} with one process, {size:,} bytes of files")
        if unknown := len(todo) - len(known):
            print(f"(without {counted(unknown, 'run')} of kinds of which the store holds no finished run)")
