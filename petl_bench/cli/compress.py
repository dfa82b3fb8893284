"""`petl-bench compress`: compression of a trained adapter after its training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from petl_bench.atomic import write_atomic
from petl_bench.cli.common import DEFAULT_STORE, note, print_json, say, waiting
from petl_bench.cli.compress_settings import compress_file, refuse_codes, settings_of
from petl_bench.cli.options import (
    JsonOption,
    OutOption,
    StoreOption,
    WeightsOption,
    check_store,
    check_threads,
)
from petl_bench.cli.planning import Existing
from petl_bench.cli.show import misfits
from petl_bench.cli.sweep import sweep
from petl_bench.device import cores_here
from petl_bench.errors import UserError
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.store import ADAPTER, ROW, Store, find_run
from petl_bench.types import (
    COMPRESSIONS,
    ResultRow,
    RunSpec,
    row_to_dict,
)


class How(StrEnum):
    """Ways of compressing."""

    ptq = "ptq"
    compeft = "compeft"
    loraquant = "loraquant"
    bitdelta = "bitdelta"


def compress(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run at 32 bits: its run_id or directory. Or an adapter file."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING]...",
            help="For a run: settings of its file or execution, e.g. container=short launcher.device=cpu.",
        ),
    ] = None,
    *,
    how: Annotated[
        How,
        typer.Option(
            "--how",
            help="ptq: round to a codebook; compeft: signs of the largest deviations from the start; "
            "loraquant: singular components at two precisions; bitdelta: signs of all differences, for full.",
        ),
    ],
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            help="Bits per weight, 1 to 8 (several: 1,4): of ptq, and of loraquant's first components.",
        ),
    ] = None,
    quantizer: Annotated[str | None, typer.Option("--quantizer", help="Codebook of ptq.")] = None,
    kept: Annotated[
        str | None,
        typer.Option(
            "--kept",
            help="Share of the weights (compeft) or squared singular values (loraquant); else chosen on val.",
        ),
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            "--strength", help="Size of compeft's deviations in standard deviations; else chosen on val."
        ),
    ] = None,
    out: OutOption = None,
    store: StoreOption = DEFAULT_STORE,
    weights: WeightsOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="CPU threads; 0 stands for all cores, the default of a file; a run has 1."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compress a trained adapter, without training it again.

    The compressed run is an ordinary run of the same store: its file is reloaded and evaluated once on test,
    and its row names the run that it was made from. What is not given is chosen on val, by a model that is
    trained without val for it. The store needs the run at 32 bits. --out writes the file to another place as
    well, and --threads stands for the setting launcher.threads.

    An adapter file that is no run is compressed into the file --out, and nothing is evaluated; all strengths
    must be given.
    """
    given: dict[str, Any] = {"bits": bits, "quantizer": quantizer, "kept": kept, "strength": strength}
    given = {name: value for name, value in given.items() if value is not None}
    path = Path(run)
    if path.name == ADAPTER and (path.parent / ROW).is_file():
        path = path.parent
    if out is not None and (out.exists() or out.is_symlink()):
        raise UserError(f"{out}: exists already, and compress does not overwrite; choose another name")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")
    check_store(store, run)
    check_threads(threads)
    if path.is_file():
        result = compress_file(path, how.value, given, settings or [], out, weights, threads)
        found = [result]
    else:
        if weights is not None:
            raise UserError(f"--backbone-weights {weights}: a run states its weights; leave it out")
        own = [] if threads is None else [f"launcher.threads={threads or cores_here()}"]
        found = _run(str(path), Store(store), how.value, given, [*(settings or []), *own], out)
    for result in found:
        if json:
            print_json("compress/1", result)
        else:
            say(_in_words(result))


def _run(
    run: str, store: Store, how: str, given: dict[str, Any], settings: list[str], out: Path | None
) -> list[dict[str, Any]]:
    """Compress a run of a store.

    Raises:
        UserError: it cannot be compressed in this way.
    """
    from petl_bench.config.command import overrides_of

    shelf, run_id = find_run(run, store)
    spec, row = shelf.spec(run_id), shelf.row(run_id)
    own = overrides_of(spec)
    if wrong := misfits(own, spec, run_id, row):
        raise UserError(f"run {run_id} cannot be planned again: {wrong[0]}")
    if spec.compressed:
        raise UserError(
            f"run {run_id}: is compressed; name the run that it was made from: {row.compressed_from}"
        )
    refuse_codes(f"run {run_id}", spec.bits, spec.float_bits)
    chosen = settings_of(spec.adapter.name, how, given)
    for line in settings:
        key, equals, value = line.partition("=")
        if not equals:
            raise UserError(f"{line}: is no setting; write KEY=VALUE, for example container=short")
        if key in chosen:
            raise UserError(f"{line}: {key}={chosen[key]} is given already; leave out one of the two")
        chosen[key] = value
    decided = chosen | COMPRESSIONS[how].fixed
    lines = [line for line in own if line.partition("=")[0] not in decided]
    lines += [f"{key}={value}" for key, value in chosen.items()]
    wanted = _planned(lines, run_id, row)
    if out is not None and len(wanted) > 1:
        raise UserError(f"--out {out}: is one file, and {len(wanted)} runs are planned; leave it out")
    with waiting("loading torch"):
        from petl_bench.launch.preflight import preflight
    preflight([*wanted.values()])
    sweep(lines, store=shelf.root, existing=Existing.retry_failed)
    if out is not None:
        file = shelf.directory(next(iter(wanted))) / ADAPTER
        try:
            write_atomic(out, read_bytes(file, ADAPTER_LIMIT))
        except OSError as error:
            raise UserError(f"{out}: {error.strerror}; the run is kept: copy {file}") from error
        note(f"wrote {out}")
    rows = [row_to_dict(shelf.row(name)) for name in wanted]
    before = {"acc_source": row.acc, "bytes_source": row.bytes_file, "out": str(out) if out else None}
    return [held | before for held in rows]


def _planned(lines: list[str], run_id: str, row: ResultRow) -> dict[str, RunSpec]:
    """Return the compressed runs that overrides plan, by run_id.

    Raises:
        UserError: they compress another run, or nothing.
    """
    from petl_bench.config import plan
    from petl_bench.config.specs import uncompressed
    from petl_bench.run.identity import job_of, resolve_tasks

    planned = plan(lines)
    specs = resolve_tasks(planned.runs, planned.cache)
    found: dict[str, RunSpec] = {}
    for spec in specs:
        if not spec.compressed:
            raise UserError(f"run {run_id}: these settings compress nothing: choose 1 to 8 bits")
        sources = [job_of(source, checksum=row.backbone_sha256).run_id for source in uncompressed(spec)]
        if run_id not in sources:
            raise UserError(
                f"run {run_id}: these settings compress run {sources[0]} instead; give settings of the file "
                "alone, and check that data and weights have not changed"
            )
        found[job_of(spec, checksum=row.backbone_sha256).run_id] = spec
    return found


def _in_words(result: dict[str, Any]) -> str:
    size = f"{result['bytes_file']:,} bytes, of {result['bytes_source']:,}"
    if result["run_id"] is None:
        return f"{result['out']}: {result['compress']}, {size}"
    chosen = f" ({result['chosen']} chosen on val)" if result["chosen"] else ""
    before = f"run {result['compressed_from']} {result['acc_source']:.4f}"
    return f"{result['run_id']} {result['compress']}{chosen}: acc {result['acc']:.4f}, {before}; {size}"
