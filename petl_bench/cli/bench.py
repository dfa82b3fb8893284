"""`petl-bench bench`: timings of this implementation and of a plain reference."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from petl_bench.cli.common import note, print_json
from petl_bench.cli.options import DeviceOption, JsonOption, ThreadsOption, check_threads
from petl_bench.errors import counted

if TYPE_CHECKING:
    from petl_bench.dev.bench import Case, Measurement, Setting


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Measurements to run, see --list; all if none is given.")
    ] = None,
    json: JsonOption = False,
    list_names: Annotated[
        bool, typer.Option("--list", help="List all measurements without running them.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=0, help="Timings of each side; 0 uses the default of each measurement."),
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use tiny sizes and one round, to check that it works.")
    ] = False,
) -> None:
    """Compare the speed with that of the released code.

    Both are timed alternately in one process, and the ratios of their times are printed.
    """
    check_threads(threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # keeps torch's profiler from writing to stderr
    import torch

    from petl_bench.dev.bench import CASES, Setting, measured
    from petl_bench.device import cores_here, find_device

    cases = [CASES.get(name) for name in dict.fromkeys(names or CASES)]
    if list_names:
        _list(cases, json)
        return
    setting = Setting(find_device(device, "--device "), threads or cores_here(), rounds, quick)
    torch.set_num_threads(setting.threads)
    if quick:
        note("--quick: tiny sizes and one round; the timings say nothing about speed")
    found = []
    for number, case in enumerate(cases, 1):
        note(f"[{number}/{len(cases)}] {case.name}: {case.what}")
        found.append(measured(case, setting))
        if json:
            print_json("bench/1", found[-1].to_dict())
    if not json:
        _print(found, setting)


def _list(cases: list[Case], json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what", "target")
    for case in cases:
        if json:
            facts = {"name": case.name, "what": case.what, "target": case.target, "goal": case.goal}
            print_json("bench-list/1", facts)
        table.add_row(case.name, case.what, "" if case.target is None else f"{case.target:g}")
    if not json:
        Console(width=120, highlight=False).print(table)


def _print(found: list[Measurement], setting: Setting) -> None:
    """Print a table of the measurements and the sizes at which they were taken."""
    from rich.console import Console
    from rich.table import Table

    from petl_bench.device import device_name

    columns = ("name", "what", "ours", "reference", "ratio", "quartiles", "peak memory", "target", "met")
    table = Table(*columns)
    for one in found:
        timing, case = one.timing, one.case
        is_ratio = timing.ratio is not None
        table.add_row(
            case.name,
            case.what,
            _time(timing.seconds),
            "" if timing.seconds_reference is None else _time(timing.seconds_reference),
            f"{timing.ratio:.3g}" if is_ratio else "",
            " to ".join(f"{value:.3g}" if is_ratio else _time(value) for value in (timing.low, timing.high)),
            "" if timing.bytes is None else f"{_bytes(timing.bytes)} / {_bytes(timing.bytes_reference)}",
            "" if case.target is None else f"{case.target:g}" + ("" if is_ratio else " s"),
            {True: "yes", False: "no", None: ""}[one.met],
        )
    console = Console(width=180, highlight=False)
    console.print(table)
    for one in found:
        if one.timing.note or one.case.meaning:
            meaning = f" ratio: {one.case.meaning};" if one.case.meaning else ""
            console.print(f"{one.case.name}:{meaning} {one.timing.note}", markup=False)
    where = f"{device_name(setting.device)}, {counted(setting.threads, 'thread')}"
    console.print(f"medians and quartiles over alternating rounds of ours and the reference, on {where}")
    if setting.quick:
        console.print("--quick: tiny sizes and one round; the timings say nothing about speed")


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.3g} MB"
