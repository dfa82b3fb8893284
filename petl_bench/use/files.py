"""Adapter files with all that their use needs: backbone, preparation of images, names of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from petl_bench import packing
from petl_bench.data import manifests
from petl_bench.errors import UserError, did_you_mean
from petl_bench.files import ADAPTER_LIMIT, read_bytes
from petl_bench.packing import FROM_FILE, AdapterFile, FileMetadata
from petl_bench.run.execute import configured, read_metadata, trained_on
from petl_bench.run.identity import backbone_sha256
from petl_bench.store import ADAPTER, ROW, Store, find_run
from petl_bench.types import RESIZES, BackboneSpec, Manifest, ResultRow, RunSpec

Source = str | Path
"""An adapter file, the directory of a run, or a run_id."""


@dataclass(frozen=True)
class Trained:
    """An adapter file that has been read.

    Attributes:
        where: path of the file, for messages.
        file: its content.
        size: its size in bytes.
        facts: its metadata.
        backbone: the backbone, with its weights.
        resize: how images are brought to the size of the input: one of RESIZES.
        as_shown: whether images are read as a viewer shows them, as the user's own data are, or as the
            published loaders of benchmarks read them (petl_bench.data.images).
        class_names: names of the classes by label; empty if neither the file nor a manifest states them.
        remarks: sentences about what could not be checked.
    """

    where: str
    file: AdapterFile
    size: int
    facts: FileMetadata
    backbone: BackboneSpec
    resize: str
    as_shown: bool
    class_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def read(
    source: Source,
    backbone_weights: str | Path | None = None,
    resize: str | None = None,
    store: str | Path = "results",
    load: Callable[[bytes, str], AdapterFile] = packing.load,
    labelled: Callable[[str], BackboneSpec] = configured,
) -> Trained:
    """Read an adapter file; the backbone is not built.

    Args:
        source: path of an adapter file, directory of a run, or run_id (or a unique beginning of one).
        backbone_weights: file of backbone weights; None: as the run or the file states.
        resize: `stretch` or `crop`, for files that do not state it; others must agree.
        store: store of a run that is given by its run_id.
        load: function of the bytes and the path of a file that returns its content.
        labelled: function from the label of a backbone to the backbone.

    Raises:
        UserError: there is no such file or run, the file is damaged, or something is not stated.
    """
    path, spec = _found(source, Path(store))
    where, data = str(path), read_bytes(path, ADAPTER_LIMIT)
    file = load(data, where)
    facts = read_metadata(file, where, labelled) if spec is None else _facts_of_run(file, spec, where)
    backbone = _with_weights(facts.model.backbone, backbone_weights, where)
    own, stated, manifest = _task(facts, spec)
    remark = (
        f"{where}: was converted and states no checksum of its backbone; it is not checked whether it was "
        f"trained on these weights of {backbone.display_name}"
    )
    return Trained(
        where,
        file,
        len(data),
        facts,
        backbone,
        _resize(stated, resize, where),
        own,
        facts.class_names or _names(manifest, facts),
        (remark,) if facts.backbone_checksum is None else (),
    )


def row_of(source: Source, store: str | Path = "results") -> ResultRow:
    """Return the row of the run that an adapter file belongs to.

    Args:
        source: directory of a run, its adapter file there, or a run_id (or a unique beginning of one).
        store: store of a run that is given by its run_id.

    Raises:
        UserError: the file lies in no run, or there is no such run.
    """
    path = Path(source)
    if path.is_file() and (path.name != ADAPTER or not (path.parent / ROW).is_file()):
        raise UserError(
            f"{path}: accuracy and protocol of a file alone are not known; give its run (run_id or directory)"
        )
    shelf, run_id = find_run(str(path.parent if path.is_file() else source), Store(Path(store)))
    return shelf.row(run_id)


def on_its_backbone(trained: Trained) -> Trained:
    """Return an adapter file with its backbone in the description of the model.

    Raises:
        UserError: it was trained on other weights.
    """
    backbone = trained.backbone
    return replace(
        trained, facts=trained_on(trained.file, backbone, lambda: backbone_sha256(backbone), trained.where)
    )


def backbone_of(source: Source, weights: str | Path | None = None) -> BackboneSpec:
    """Return the backbone of an adapter file or of a run; see `read`."""
    path, spec = _found(source, Path())
    where = str(path)
    file = packing.load(read_bytes(path, ADAPTER_LIMIT), where)
    facts = read_metadata(file, where) if spec is None else _facts_of_run(file, spec, where)
    return _with_weights(facts.model.backbone, weights, where)


def _found(source: Source, store: Path) -> tuple[Path, RunSpec | None]:
    """Return the path of an adapter file, and the spec of its run if a run was named."""
    path = Path(source)
    if path.is_file():
        return path, None
    shelf, run_id = find_run(str(source), Store(store))
    return shelf.directory(run_id) / ADAPTER, shelf.spec(run_id)


def _facts_of_run(file: AdapterFile, spec: RunSpec, where: str) -> FileMetadata:
    facts = packing.interpret(file, lambda label: spec.backbone, where)
    return replace(facts, model=replace(facts.model, backbone=spec.backbone))


def _with_weights(backbone: BackboneSpec, weights: str | Path | None, where: str) -> BackboneSpec:
    if weights is not None:
        return replace(backbone, weights=str(weights))
    if backbone.weights == FROM_FILE:
        raise UserError(f"{where}: was trained on weights from a file; name that file (backbone weights)")
    return backbone


def _task(facts: FileMetadata, spec: RunSpec | None) -> tuple[bool, str, Manifest | None]:
    """Return whether the task is own data, how its images are resized (empty: unknown), and its manifest."""
    if spec is not None and spec.task.suite == "own":
        return True, spec.task.resize, None
    if facts.resize:
        return True, facts.resize, None
    manifest = manifests().get(facts.task)
    return manifest is None, manifest.resize if manifest else "", manifest


def _resize(stated: str, given: str | None, where: str) -> str:
    if given is not None and given not in RESIZES:
        raise UserError(f"resize={given!r}: {did_you_mean(given, RESIZES)}")
    if given is None and not stated:
        raise UserError(
            f"{where}: does not state how images were resized for its task; say it: resize=crop (for "
            "task=tree) or resize=stretch (task=folder, VTAB-1K)"
        )
    if given is not None and stated and given != stated:
        raise UserError(f"{where}: images of its task are resized by {stated!r}, not {given!r}; leave it out")
    return given or stated


def _names(manifest: Manifest | None, facts: FileMetadata) -> tuple[str, ...]:
    names = tuple(manifest.class_names) if manifest else ()
    return names if len(names) == facts.model.classes else ()
