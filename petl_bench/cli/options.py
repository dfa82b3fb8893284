"""Options and arguments of the commands: each meaning has one name and one sentence, declared here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petl_bench.cli import completion
from petl_bench.cli.common import DEFAULT_STORE
from petl_bench.errors import UserError
from petl_bench.types import DataSettings, ProcessSettings, declarations, require

StoreOption = Annotated[
    Path, typer.Option("--store", help="Directory of the runs and their results.", show_default=True)
]
RUN = "A run: its run_id, a unique beginning of it, or its directory."
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=RUN, autocompletion=completion.runs)]
TrainedArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="An adapter file, or a run: its run_id or directory.")
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="K=V",
        help="Only runs with this value of a column or a setting, e.g. bits=1,2 or "
        "'protocol.scales=[1,10]'. Repeatable.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--backbone-weights",
        "--weights",
        help="File of backbone weights, for adapters trained on weights from a file.",
    ),
]
ResizeOption = Annotated[
    str | None, typer.Option("--resize", help="stretch or crop, only for files that do not state it.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="Device: auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; 0, the default, stands for all cores.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data sets; by default $PETL_BENCH_DATA or ./data."),
]
RootsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="[NAME=]DIR",
        help="Folder of the data, if it is not where runs state it; NAME=DIR: of one task or suite. "
        "Repeatable.",
    ),
]
OverrideOption = Annotated[
    Path | None,
    typer.Option("--override", help="YAML file with split sizes that replace those of the manifests."),
]
TargetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[DST]", help="File or folder to write, as --out.", show_default=False),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File or folder to write.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON objects, one per line, and nothing else.")
]


def data_settings(root: Path | None, override: Path | None = None) -> DataSettings:
    """Return the `data` settings of a command that takes no overrides."""
    return DataSettings(root=str(root or ""), override=str(override or ""))


def check_store(store: Path, *runs: str) -> None:
    """Refuse a value of --store that has no use, because all runs are given by paths elsewhere.

    Raises:
        UserError: it has none.
    """
    paths, root = [Path(run) for run in runs], store.resolve()
    elsewhere = (path.exists() and not path.resolve().is_relative_to(root) for path in paths)
    if store != DEFAULT_STORE and paths and all(elsewhere):
        raise UserError(f"--store {store}: has no use, because {paths[0]} is a path; leave it out")


def check_threads(threads: int | None) -> None:
    """Check the value of --threads; 0 and None stand for all cores.

    Raises:
        UserError: it is out of range.
    """
    known = declarations(ProcessSettings)["threads"]
    require(not threads or known.allows(threads), "--threads", threads, f"0 for all cores, or {known.right}")


def use_threads(threads: int | None) -> None:
    """Let torch compute with a number of threads: 0 stands for all cores, None for torch's own choice."""
    if threads is not None:
        import torch

        from petl_bench.device import cores_here

        torch.set_num_threads(threads or cores_here())


def destination(target: Path | None, out: Path | None) -> Path:
    """Return the path that a command is to write, given as DST or by --out.

    Raises:
        UserError: both or none of them are given.
    """
    if (target is None) == (out is None):
        raise UserError(
            "name the file or folder to write, as DST or with --out"
            if target is None
            else f"{target} and --out {out}: give one of them"
        )
    return target or out or Path()
