"""Runs by what a user calls them: a run_id, the beginning of one, or a directory."""

from __future__ import annotations

from pathlib import Path

from petl_bench.errors import UserError, did_you_mean
from petl_bench.store.files import ERROR, ROW
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
        return store, _unique(text, store, failed)
    if not (path / ROW).is_file() and not (failed and (path / ERROR).is_file()):
        run = next((found.parent for found in sorted(path.glob(f"[!.]*/{ROW}"))), None)
        hint = f"; it is a store: name one of its runs, for example {run}" if run is not None else ""
        raise UserError(f"{text}: not the directory of a finished run (it holds no {ROW}){hint}")
    return Store(path.resolve().parent), path.resolve().name


def _unique(run_id: str, store: Store, failed: bool) -> str:
    """Return the only run_id with a beginning, of finished runs and, where asked, of those that failed."""
    files = (ROW, ERROR) if failed else (ROW,)
    known = sorted({path.parent.name for file in files for path in store.root.glob(f"[!.]*/{file}")})
    found = [name for name in known if name.startswith(run_id)]
    if len(found) != 1:
        what = "fits several runs" if found else f"is no finished {'or failed ' if failed else ''}run"
        hint = f": {did_you_mean(run_id, found or known)}" if known else ", which holds none"
        raise UserError(f"{run_id!r} {what} of store {store.root}{hint}")
    return found[0]
