"""`petl-bench bench`: this implementation against the plain reference path, by turns."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli.common import JsonOption, note, print_json
from petl_bench.errors import counted

if TYPE_CHECKING:
    from petl_bench.dev.bench import Case, Measurement, Setting


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Measurements, as --list names them; none: all.")
    ] = None,
    json: JsonOption = False,
    list_names: Annotated[bool, typer.Option("--list", help="Name all measurements and run none.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda:0.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=0, help="Of the CPU; 0: all cores.")] = 0,
    rounds: Annotated[
        int, typer.Option("--rounds", min=0, help="Timings of each side; 0: as each measurement needs.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, one round: shows that it works, measures nothing.")
    ] = False,
) -> None:
    """Time this implementation against the released code's way, interleaved, in one process."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler talks on stderr otherwise
    import torch

    from petl_bench.dev.bench import CASES, Setting, measured
    from petl_bench.device import find_device

    cases = [CASES.get(name) for name in dict.fromkeys(names or CASES)]
    if list_names:
        _list(cases, json)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    setting = Setting(find_device(device), threads or cores, rounds, quick)
    torch.set_num_threads(setting.threads)
    if quick:
        note("--quick: tiny sizes and one round; the figures say nothing about speed")
    found = []
    for number, case in enumerate(cases, 1):
        note(f"[{number}/{len(cases)}] {case.name}: {case.what}")
        found.append(measured(case, setting))
        if json:
            print_json(found[-1].to_dict())
    if not json:
        _print(found, setting)


def _list(cases: list[Case], json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what", "target")
    for case in cases:
        if json:
            print_json({"name": case.name, "what": case.what, "target": case.target, "goal": case.goal})
        table.add_row(case.name, case.what, "" if case.target is None else f"{case.target:g}")
    if not json:
        Console(width=120, highlight=False).print(table)


def _print(found: list[Measurement], setting: Setting) -> None:
    """A table of what was found, and the sizes it was found at."""
    from rich.console import Console
    from rich.table import Table

    from petl_bench.run.provenance import device_name

    columns = ("name", "what", "ours", "reference", "ratio", "spread", "peak memory", "target", "met")
    table = Table(*columns)
    for one in found:
        figures, case = one.figures, one.case
        is_ratio = figures.ratio is not None
        table.add_row(
            case.name,
            case.what,
            _time(figures.seconds),
            "" if figures.seconds_reference is None else _time(figures.seconds_reference),
            f"{figures.ratio:.3g}" if is_ratio else "",
            " to ".join(
                f"{value:.3g}" if is_ratio else _time(value) for value in (figures.low, figures.high)
            ),
            "" if figures.bytes is None else f"{_bytes(figures.bytes)} / {_bytes(figures.bytes_reference)}",
            "" if case.target is None else f"{case.target:g}" + ("" if is_ratio else " s"),
            {True: "yes", False: "no", None: ""}[one.met],
        )
    console = Console(width=180, highlight=False)
    console.print(table)
    for one in found:
        if one.figures.note or one.case.meaning:
            meaning = f" ratio: {one.case.meaning};" if one.case.meaning else ""
            console.print(f"{one.case.name}:{meaning} {one.figures.note}", markup=False)
    where = f"{device_name(setting.device)}, {counted(setting.threads, 'thread')}"
    console.print(f"medians and quartiles over rounds, ours and the reference by turns, on {where}")
    if setting.quick:
        console.print("--quick: tiny sizes and one round; the figures say nothing about speed")


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.3g} MB"
