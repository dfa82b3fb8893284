"""Conversions of one source each: what `petl-bench convert` writes for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petl_bench.cli.common import note
from petl_bench.errors import UserError, did_you_mean
from petl_bench.files import ADAPTER_LIMIT, read_bytes

_NEEDED = ("adapter", "hidden", "bits", "classes", "scale")
"""Settings that a .bin file does not state. Its head follows from its size, and the task is optional."""


@dataclass(frozen=True)
class Conversion:
    """The conversion that is asked for, the same for every source.

    Attributes:
        released: write the authors' format, a .bin and a .yaml file; else an adapter file.
        packing: coded or raw; None: coded where this is smaller.
        ranks: number of ranks to keep; None: all.
        stated: settings that a .bin file does not state, by name; those that were given.
        foreign: settings of folders of PEFT, by name; None where not given.
    """

    released: bool
    packing: str | None = None
    ranks: int | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    foreign: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """Name of the target's format."""
        return "petl-vit" if self.released else "petl-bench"

    @property
    def suffix(self) -> str:
        """Suffix of the files that are written."""
        return ".bin" if self.released else ".safetensors"

    @property
    def code(self) -> bool:
        """True if adapter files are entropy-coded where this is smaller."""
        return self.packing != "raw"

    def written(self, target: Path) -> list[Path]:
        """Return the files that are written for a target."""
        return [target, target.with_suffix(".yaml")] if self.released else [target]

    def check(self, source: Path) -> None:
        """Refuse options that a source has no use for.

        Raises:
            UserError: there is one.
        """
        is_folder = source.is_dir()
        for name, value in self.foreign.items():
            if value is not None and not is_folder:
                raise UserError(
                    f"--{name} {value}: is for folders of PEFT, and {source} is none; leave it out"
                )
        if is_folder and self.released:
            raise UserError(f"{source}: a folder of PEFT can only be converted --to petl-bench")
        if self.released and self.packing:
            raise UserError(
                f"--packing {self.packing}: a .bin file has only one packing; leave the option out"
            )
        if self.ranks is not None and (self.released or is_folder or source.suffix == ".bin"):
            raise UserError(
                f"--ranks {self.ranks}: only adapter files can be truncated, and only to adapter files; "
                "leave it out"
            )

    def contents(self, source: Path) -> list[bytes]:
        """Return the content of each file of `written`.

        Raises:
            UserError: the source cannot be read, is damaged, or the target's format does not support it.
        """
        if self.released:
            return self._exported(source)
        if source.is_dir():
            return [self._from_peft(source)]
        return [self._imported(source) if source.suffix == ".bin" else self._repacked(source)]

    def _repacked(self, source: Path) -> bytes:
        from petl_bench.packing import dump, load, truncate

        if self.stated:
            name = next(iter(self.stated))
            raise UserError(
                f"--{name}: leave it out: {source} is not named .bin, and adapter files hold their settings"
            )
        file = replace(load(_bytes(source), str(source)), code=self.code)
        return dump(file if self.ranks is None else truncate(file, self.ranks, str(source)))

    def _from_peft(self, source: Path) -> bytes:
        from petl_bench.packing import dump
        from petl_bench.use import read_peft

        if given := [name for name in self.stated if name != "task"]:
            raise UserError(f"--{given[0]}: leave it out: {source} is a folder of PEFT, which states it")
        file = read_peft(source, task=self.stated.get("task"), **self.foreign)
        return dump(replace(file, code=self.code))

    def _imported(self, source: Path) -> bytes:
        from petl_bench.packing import dump, petl_vit

        data, places = _bytes(source), petl_vit.settings_paths(source)
        beside = next((path for path in places if path.exists()), None)
        stated = petl_vit.read_settings(_bytes(beside), str(beside)) if beside else {}
        settings = stated | dict(self.stated)
        known = {name: settings[name] for name in petl_vit.LAYOUT_FIELDS if name in settings}
        missing = [f"--{name}" for name in _NEEDED if name not in settings]
        if missing:
            why = f"{beside} does not state all" if beside else f"no {places[0].name} beside it"
            raise UserError(
                f"{source}: {why}; give {', '.join(missing)}; {petl_vit.describe_fits(len(data), known)}"
            )
        if not math.isfinite(settings["scale"]):
            raise UserError(
                f"{source}: scale {settings['scale']} is out of range: it must be a finite number"
            )
        layout = petl_vit.bin_layout(known, len(data), str(source))
        task = _task(settings, str(source))
        file = petl_vit.read(data, layout, float(settings["scale"]), task, str(source))
        if not task:
            note(f"warning: {source}: its task is unknown; `petl-bench eval` will need --task")
        return dump(replace(file, code=self.code))

    def _exported(self, source: Path) -> list[bytes]:
        from petl_bench.packing import load, petl_vit

        file = load(_bytes(source), str(source))
        contents = petl_vit.write(file, str(source))
        held = petl_vit.settings(file, str(source))
        for name, value in self.stated.items():
            if value != held[name]:
                raise UserError(f"--{name} {value}: {source} has {name} {held[name] or 'not stated'}")
        return list(contents)


def _bytes(path: Path) -> bytes:
    return read_bytes(path, ADAPTER_LIMIT)


def _task(settings: Mapping[str, Any], where: str) -> str:
    """Return the name of the task; empty if neither the option nor the .yaml file states it."""
    from petl_bench.data import manifests

    if not {"task", "dataset"} & settings.keys():
        return ""
    name = str(settings.get("task", settings.get("dataset")))
    names = [name] if "task" in settings else [f"vtab_{name}", name]
    task = next((known for known in names if known in manifests()), None)
    if task is None:
        raise UserError(f"{where}: unknown task {name!r}: {did_you_mean(names[0], manifests())}")
    if manifests()[task].classes not in (0, settings["classes"]):
        raise UserError(
            f"{where}: classes {settings['classes']}, but {task} has {manifests()[task].classes}; "
            "correct --classes or --task"
        )
    return task
