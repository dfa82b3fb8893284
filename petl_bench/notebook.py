"""Sweeps, rows and reports for notebooks and programs: the commands of the same names, as functions.

Messages and progress go to stderr, as on the command line.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from petl_bench import plugins
from petl_bench.cli.common import note
from petl_bench.cli.planning import Existing, prepare
from petl_bench.cli.report import content_of
from petl_bench.cli.sweep import execute
from petl_bench.errors import UserError, did_you_mean
from petl_bench.report import FORMATS

if TYPE_CHECKING:
    from pandas import DataFrame


def use_plugins(*folders: str | Path) -> None:
    """Use the plug-ins of these folders from now on, as `--config-dir` does.

    Until this is called, those of the environment variable PETL_BENCH_CONFIG are used. Files that cannot be
    used are named on stderr.

    Args:
        folders: folders with `plugins`, `data_manifests` or `conf`; none: no plug-ins but installed ones.

    Raises:
        UserError: a folder is no plug-in, or two plug-ins contradict each other.
    """
    plugins.use(folders, lambda fault: note(f"warning: {fault}"))


def sweep(
    *overrides: str | Iterable[str],
    store: str | Path = "results",
    existing: str = "skip",
    fail_fast: bool = False,
) -> DataFrame:
    """Train and evaluate adapters for all combinations of settings, as `petl-bench sweep` does.

    Args:
        overrides: settings, for example `"task=digits", "bits=1,4"`, or a list of them.
        store: folder of the results; runs that are done there are skipped.
        existing: treatment of runs in the store: skip, rerun, retry-failed or rerun-stale.
        fail_fast: whether to stop at the first failed run.

    Returns:
        The rows of all runs of the sweep that are done, as `rows` returns them. Failed runs, which are named
        on stderr, have none.

    Raises:
        UserError: a setting is wrong, data cannot be used, or no run is done.
    """
    if existing not in [*Existing]:
        raise UserError(f"existing={existing!r}: {did_you_mean(existing, [*Existing])}")
    settings = [text for given in overrides for text in _texts("overrides", given)]
    prepared = prepare(settings, _folder(store), Existing(existing))
    with _hidden_main():
        execute(prepared, fail_fast)
    found = rows(store)
    return found[found.run_id.isin(prepared.runs)].reset_index(drop=True)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Let new processes not import the program that calls this one: it would begin the same sweep again."""
    held = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = held


def _texts(name: str, given: str | Iterable[str]) -> list[str]:
    """Return one text, or several, as a list.

    Raises:
        UserError: there is anything else.
    """
    found = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if isinstance(given, Mapping) or not all(isinstance(text, str) for text in found):
        raise UserError(f'{name}={given!r}: give texts as on the command line, for example "bits=1,2"')
    return found


def _folder(store: str | Path) -> Path:
    if not isinstance(store, str | Path):
        raise UserError(f"store={store!r}: give the path of a folder")
    return Path(store)


def rows(
    store: str | Path = "results",
    filters: str | Iterable[str] = (),
    tasks: str | Iterable[str] | None = None,
) -> DataFrame:
    """Return the rows of the finished runs of a store.

    Args:
        store: folder of the results.
        filters: values that columns must have, for example `["bits=1,2", "adapter=lora"]`.
        tasks: names of tasks or groups of tasks, a list or joined by commas; None: all.

    Returns:
        A row for each run, with the columns of results.jsonl and the types of Parquet.

    Raises:
        UserError: there is no finished run, or a filter selects none.
    """
    import pandas

    data = FORMATS.get("parquet")(
        content_of(_folder(store), _texts("filters", filters), _joined(tasks)), Path()
    )
    assert isinstance(data, bytes)
    return pandas.read_parquet(io.BytesIO(data))


def _joined(tasks: str | Iterable[str] | None) -> str | None:
    return None if tasks is None else ",".join(_texts("tasks", tasks))


def make_report(
    store: str | Path = "results",
    format: str = "text",
    *,
    filters: str | Iterable[str] = (),
    tasks: str | Iterable[str] | None = None,
    against: str | None = None,
    baseline: str | None = None,
    compare: tuple[str, str] | None = None,
    power: bool = False,
    margin: float = 1,
) -> str | bytes:
    """Return the report of a store, as `petl-bench report` prints it.

    Args:
        store: folder of the results.
        format: text, markdown, latex, csv, json, html, parquet, or the form of a plug-in.
        filters, tasks, against, baseline, compare, power, margin: the options of `petl-bench report`.

    Returns:
        The text; for parquet, bytes.

    Raises:
        UserError: there is no finished run, or an option has a wrong value.
    """
    if format not in [*FORMATS]:
        raise UserError(f"format={format!r}: {did_you_mean(format, [*FORMATS])}")
    if compare is not None and len(pair := _texts("compare", compare)) != 2:
        raise UserError(f"compare={compare!r}: give two configurations, ('bits=1', 'bits=32')")
    if not isinstance(margin, int | float):
        raise UserError(f"margin={margin!r}: give points of accuracy, a number")
    named = None if compare is None else (pair[0], pair[1])
    content = content_of(
        _folder(store),
        _texts("filters", filters),
        _joined(tasks),
        against,
        baseline,
        named,
        power,
        margin,
    )
    for warning in content.all_warnings:
        note(f"warning: {warning}")
    return FORMATS.get(format)(content, Path())
