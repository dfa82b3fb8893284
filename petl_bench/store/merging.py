"""Merging of stores and packing of archives; all runs are checked before any is copied."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from petl_bench.errors import StoreError, UserError
from petl_bench.files import ADAPTER_LIMIT, RECORD_LIMIT, regular
from petl_bench.store.check import Run
from petl_bench.store.check.run import DAMAGE
from petl_bench.store.files import ADAPTER, EVENTS, FILES, LOG
from petl_bench.store.runs import Store

RESULTS = ("acc", "acc_val", "acc_best_peek", "scale", "lr", "predictions", "bytes_file")
"""Columns that two executions of one run must have in common; times and machines may differ."""
_MEMBER = re.compile(r"([0-9a-f]{12})/(?:[^/.][^/]*/[^/.][^/]*/(?=events))?([^/]+)")


@dataclass
class MergePlan:
    """Plan of a merge: the fate of each run of the sources.

    Attributes:
        copied: the store of each run that will be copied.
        kept: runs that the target holds already, with the same results.
        unfinished: runs of the sources that are being executed or were not finished; they are not copied.
        refused: reasons for runs that are damaged or differ from those of the same run_id; nothing is copied
            if there are any.
    """

    copied: dict[str, Store] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def plan_merge(target: Store, sources: Iterable[Store]) -> MergePlan:
    """Compare all runs of some stores with those of a target.

    A finished run replaces a failed one, since it is the same run.

    Raises:
        UserError: a source cannot be read.
    """
    plan = MergePlan()
    for source in sources:
        for name in source.names():
            if not _MEMBER.fullmatch(f"{name}/-") or not os.path.isdir(source.directory(name)):
                continue
            here = plan.copied.get(name, target)
            state, held = source.state(name), here.state(name)
            if source.claims.busy(name) or state == "missing":
                plan.unfinished.append(name)
            elif reason := _damage(source, name):
                plan.refused[name] = f"store {source.root}: {reason}"
            elif target.claims.busy(name):
                plan.refused[name] = f"store {target.root}: a process is at work on it"
            elif held == "damaged":
                plan.refused[name] = here.fault(name)
            elif held != "done" and (state == "done" or held == "missing"):
                plan.copied[name] = source
            elif state == "done" and (reason := _difference(here, source, name)):
                plan.refused[name] = reason
            elif name not in plan.kept:
                plan.kept.append(name)
    return plan


def merge(target: Store, plan: MergePlan) -> Iterator[str]:
    """Copy the runs of a plan, and yield the run_id of each after it is copied.

    Raises:
        StoreError: the target cannot be written; the runs that were yielded are complete.
        ClaimedError: another process has begun to execute one of the runs.
    """
    for name, source in plan.copied.items():
        with target.claims.take(name, heartbeat=10):
            target.take_in(name, source)
        yield name


def pack(store: Store, run_ids: Sequence[str]) -> Iterator[bytes]:
    """Yield the pieces of a .tar.gz archive of some runs; equal runs give an equal archive, at any time.

    Logs and TensorBoard's files are included, checkpoints are not.
    """
    with tempfile.TemporaryFile() as stream:
        with (
            gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=6, filename="", mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w") as archive,
        ):
            for name in sorted(run_ids):
                for path in store.own_files(name):
                    entry = tarfile.TarInfo(f"{name}/{path.relative_to(store.directory(name)).as_posix()}")
                    entry.size = path.stat().st_size
                    with path.open("rb") as file:
                        archive.addfile(entry, file)
        stream.seek(0)
        while piece := stream.read(1 << 20):
            yield piece


@contextmanager
def opened(path: Path, beside: Store) -> Iterator[Store]:
    """Open a store, or unpack an archive of `pack` to a temporary folder and open that.

    Args:
        path: directory of a store, or an archive.
        beside: store in whose directory the temporary folder is made.

    Raises:
        UserError: the path is neither.
    """
    if path.is_dir():
        yield Store(path)
        return
    regular(path, ADAPTER_LIMIT)
    folder = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=beside.root))
    try:
        _unpack(path, folder)
        yield Store(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive of `pack`; members of any other kind or name are refused."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                match = _MEMBER.fullmatch(member.name)
                file = match.group(2) if match else ""
                if not member.isfile() or not (file in (*FILES, LOG) or file.startswith(EVENTS)):
                    raise UserError(
                        f"{path}: member {member.name!r} is not a file of a run: "
                        "expected an archive of `petl-bench store pack`"
                    )
                if member.size > (ADAPTER_LIMIT if file == ADAPTER else RECORD_LIMIT):
                    raise UserError(f"{path}: member {member.name!r} has {member.size:,} bytes, too many")
                place = folder / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with place.open("xb") as file_out:
                    shutil.copyfileobj(content, file_out)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a complete archive of `petl-bench store pack`: {error}") from error
    except FileExistsError as error:
        raise UserError(f"{path}: holds a file twice: {Path(error.filename).name}") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be unpacked: {error.strerror or error}") from error


def _damage(store: Store, name: str) -> str:
    """Return the first damage of a run in words; empty where it has none."""
    run = Run(store, name)
    run.examine()
    found = [problem for problem in run.problems if problem.kind in DAMAGE and problem.kind != "litter"]
    return f"{found[0].path}: {found[0].message}" if found else ""


def _difference(here: Store, there: Store, name: str) -> str:
    """Describe how the results of one run differ between two stores; empty where they are the same."""
    own, other = here.row(name), there.row(name)
    differing = [
        f"{column} is {getattr(own, column)!r} and {getattr(other, column)!r}"
        for column in RESULTS
        if getattr(own, column) != getattr(other, column)
        and "" not in (getattr(own, column), getattr(other, column))
    ]
    if (
        not differing
        and (here.directory(name) / ADAPTER).read_bytes() != (there.directory(name) / ADAPTER).read_bytes()
    ):
        differing = ["the adapter files differ"]
    return f"stores {here.root} and {there.root}: {', '.join(differing)}" if differing else ""
