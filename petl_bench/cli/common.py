"""Output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl_bench import plugins
from petl_bench.errors import DamagedError, UserError, counted, presentable, shown
from petl_bench.layout import wrapped
from petl_bench.types import ResultRow

if TYPE_CHECKING:
    from rich.text import Text

    from petl_bench.store import Store
DEFAULT_STORE = Path("results")


def say(*lines: str) -> None:
    """Print lines of results on stdout; control characters, which names may hold, are shown escaped."""
    print("\n".join(map(shown, lines)), flush=True)


def say_within(width: int | None, *lines: str, indent: str = "  ") -> None:
    """Print lines of results, those that are wider than a width on several; see `petl_bench.layout`."""
    say(*(part for line in lines for part in wrapped(shown(line), width, indent)))


def note(message: str) -> None:
    """Print a message that is not a result, on stderr, as one line."""
    print(presentable(message), file=sys.stderr, flush=True)


_told: list[str] = []


def tell_interruption(message: str = "") -> None:
    """Print that the command was interrupted; without a message, only if nothing has said so yet."""
    if message or not _told:
        _told.append(message)
        with suppress(OSError):  # the terminal may be closed
            note(message or "interrupted")


def command(text: str) -> None:
    """Print a command to copy, on stderr, in full."""
    print(f"    {shown(text)}", file=sys.stderr, flush=True)


def cells(*values: object) -> list[Text]:
    """Return the cells of a row of a table; see `say`. What looks like markup of rich is text."""
    from rich.text import Text

    return [Text(shown(str(value))) for value in values]


def print_json(schema: str, values: Mapping[str, Any]) -> None:
    """Print a JSON object as one line of stdout.

    Args:
        schema: name and version of its keys, such as `inspect/1`; docs/json.md describes them. A key that
            goes or changes its meaning raises the version; a new one does not.
        values: the object.
    """
    print(json.dumps({"schema": f"petl-bench/{schema}", **values}, allow_nan=False), flush=True)


def written(source: str, target: Path | None, form: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the JSON object of a command that has written files.

    Args:
        source: what they were made from.
        target: the file or folder; None: nothing was written here.
        form: its form.
        files: contents by name.
    """
    sizes = {name or (target.name if target else ""): len(content) for name, content in files.items()}
    return {"source": source, "out": str(target) if target else None, "to": form, "files": sizes}


def usable_rows(store: Store, needed: bool = False, as_written: bool = False) -> list[ResultRow]:
    """Return all undamaged rows of a store, with one warning about the damaged ones.

    Args:
        needed: whether a store of damaged rows only is an error.
        as_written: whether to take rows that contradict other files of their runs, too.

    Raises:
        UserError: the store does not exist, or holds only damaged rows and `needed` is set.
    """
    damaged: list[DamagedError] = []
    rows = list(store.rows(damaged.append, as_written))
    if damaged:
        many = counted(len(damaged), "damaged run")
        way_out = f"petl-bench store check {'names it' if len(damaged) == 1 else 'names them'}"
        first = f"(first: {damaged[0].path}: {damaged[0].why}); {way_out}"
        if needed and not rows:
            raise UserError(f"store {store.root}: holds {many} and no others {first}")
        note(f"warning: {many} of store {store.root} {'is' if len(damaged) == 1 else 'are'} left out {first}")
    return rows


def flat(
    values: Mapping[str, Any], without: Mapping[str, object] | None = None, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield nested settings by their keys as in overrides, such as `train.epochs`.

    Args:
        values: settings, some of which are dictionaries of settings.
        without: dictionaries of settings that are left out where they have this value, by key.
        prefix: what stands before each key.
    """
    for key, value in values.items():
        if not isinstance(value, Mapping):
            yield prefix + key, value
        elif without is None or value != without.get(prefix + key):
            yield from flat(value, without, f"{prefix}{key}.")


def in_use() -> list[str]:
    """Return the options that name the plug-ins in use, for commands to copy."""
    return [word for folder in plugins.folders() for word in ("--config-dir", folder)]


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal what a command is busy with until it says something else; nothing may be printed."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def duration(seconds: float) -> str:
    """Return a duration in s, min or h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Counter:
    """Progress bar for work on many files, on stderr; nothing is shown if that is not a terminal.

    Args:
        what: label of the bar.
        total: expected number of files; None and 0: unknown.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "left")
        console = Console(stderr=True)
        self.bar = Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # results that go elsewhere must not join the bar
        )
        self.task = self.bar.add_task("", total=total or None)

    def __enter__(self) -> Counter:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def __call__(self, count: int) -> None:
        self.bar.advance(self.task, count)
