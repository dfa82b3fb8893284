"""Runs by what a user calls them: a run_id, the beginning of one, or a directory."""

from __future__ import annotations

from pathlib import Path

from petl_bench.errors import UserError
from petl_bench.store.reading import ERROR, ROW
from petl_bench.store.runs import Store


def find_run(text: str, store: Store, failed: bool = False) -> tuple[Store, str]:
    """Return the store and the run_id of a finished run.

    Args:
        text: run_id, a unique beginning of it, or the directory of the run.
        store: store of a run that is given by its run_id.
        failed: whether a run that failed will do, too.

    Raises:
        UserError: there is no such run.
    """
    path = Path(text)
    if not path.is_dir():
        if "/" in text or path.suffix:
            raise UserError(f"{text}: no such file or directory")
        return store, store.find(text, failed)
    if not (path / ROW).is_file() and not (failed and (path / ERROR).is_file()):
        run = next((found.parent for found in sorted(path.glob(f"[!.]*/{ROW}"))), None)
        hint = f"; it is a store: name one of its runs, for example {run}" if run is not None else ""
        raise UserError(f"{text}: not the directory of a finished run (it holds no {ROW}){hint}")
    return Store(path.resolve().parent), path.resolve().name
