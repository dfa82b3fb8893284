"""Command line `petl-bench`: its commands and exit codes. Heavy imports are inside the commands."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from petl_bench import __version__, plugins
from petl_bench.cli import bench as bench_command
from petl_bench.cli import compare as compare_command
from petl_bench.cli import completion
from petl_bench.cli import compress as compress_command
from petl_bench.cli import convert as convert_command
from petl_bench.cli import data as data_command
from petl_bench.cli import doctor as doctor_command
from petl_bench.cli import eval as eval_command
from petl_bench.cli import export as export_command
from petl_bench.cli import inspect as inspect_command
from petl_bench.cli import ls as ls_command
from petl_bench.cli import predict as predict_command
from petl_bench.cli import report as report_command
from petl_bench.cli import rerun as rerun_command
from petl_bench.cli import show as show_command
from petl_bench.cli import store as store_command
from petl_bench.cli import sweep as sweep_command
from petl_bench.cli.common import note, tell_interruption
from petl_bench.cli.plugged import add_config_dir
from petl_bench.errors import UserError, gpu_failed, lost_device, out_of_memory

app = typer.Typer(
    name="petl-bench",
    help="Train, store, evaluate and compare quantized adapters on frozen vision backbones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes longer than all the rest
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("sweep")(sweep_command.sweep)
app.command("eval")(eval_command.evaluate)
app.command("predict")(predict_command.predict)
app.command("export")(export_command.export)
app.command("compare")(compare_command.compare)
app.command("report")(report_command.report)
app.command("show")(show_command.show)
app.command("rerun")(rerun_command.rerun)
app.command("compress")(compress_command.compress)
app.add_typer(data_command.app, name="data")
app.add_typer(store_command.app, name="store")
app.command("ls")(ls_command.ls)
app.command("convert")(convert_command.convert)
app.command("inspect")(inspect_command.inspect)
app.command("doctor")(doctor_command.doctor)
app.command("bench")(bench_command.bench)
add_config_dir(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"petl-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options that stand before the command."""


INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@functools.cache
def _command() -> Callable[..., Any]:
    """Return the parser of all commands; it is made once in a process."""
    return typer.main.get_command(app)


_interruptions: list[int] = []
_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # which Typer does not export


def main() -> None:
    """Run the command line.

    Exit codes: 0 success; 1 some runs failed, or a check found problems; 2 an error of usage, configuration
    or data; 130, 143 or 129 interrupted by Ctrl-C, SIGTERM or SIGHUP.
    """
    for number in INTERRUPTS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding may lack characters
    completion.join_words()
    try:
        _check_folder()
        sys.exit(_command()(standalone_mode=False) or 0)
    except SystemExit:
        if _interruptions:  # a library exits with another code
            _leave_interrupted()
        raise
    except Exception as error:
        if _interruptions:  # a library turned it into another error
            _leave_interrupted()
        if "--debug" in sys.argv:
            traceback.print_exc()
        if type(error).__name__ == "NoArgsIsHelpError" and isinstance(error, _UsageError):
            error.show()  # its message is the help text
        else:
            note(f"error: {_message(error)}")
        sys.exit(2)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Exit at Ctrl-C and the like; all `finally` clauses are run."""
    _interruptions.append(number)
    sys.exit(128 + number)


def _leave_interrupted() -> NoReturn:
    tell_interruption()
    sys.exit(128 + _interruptions[-1])


def _check_folder() -> None:
    """Refuse a working directory that has been deleted, to which no relative path leads."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working directory has been deleted: change to another one") from error


def _usage_hint(error: Any, where: str) -> str:
    """Return what to do about an error of usage; a setting that was given as an option has a key."""
    if where.endswith((" sweep", " rerun")):
        from petl_bench.config import keys

        name = getattr(error, "option_name", "").strip("-").replace("-", "_")
        same = (key.name for key in keys() if name in (key.name, key.name.rpartition(".")[2]))
        found = [*dict.fromkeys(same)]
        if found:
            return f"settings are given without dashes: {' or '.join(f'{key}=VALUE' for key in found)}"
    return f"`{where} --help` shows the usage"


def _message(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, _UsageError):
        where = error.ctx.command_path if error.ctx else "petl-bench"
        said = error.format_message().removesuffix(".").replace("Value error, ", "")
        return f"{said}; {_usage_hint(error, where)}"
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}"
    if out_of_memory(error):
        return "the memory of this machine does not suffice for this command"
    if lost_device(error):
        return gpu_failed("the GPU", error)
    place = plugins.origin(error)
    whose = "an error of the plug-in" if place else "a bug of petl-bench"
    said = f"{place}: {type(error).__name__}: {error}" if place else f"{type(error).__name__}: {error}"
    return f"{said} ({whose}; `petl-bench --debug COMMAND` shows where)"
