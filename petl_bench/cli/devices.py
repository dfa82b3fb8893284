"""Devices and precisions of a sweep, as its plan and its beginning state them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from petl_bench.device import check_int8, device_name, find_device, find_devices, unused_gpu
from petl_bench.types import LauncherSettings, RunSpec


def devices_of(launcher: LauncherSettings) -> list[str]:
    """Return the devices of the runs on this machine."""
    return find_devices(launcher.device) if launcher.name == "pool" else [find_device(launcher.device)]


def device_line(launcher: LauncherSettings, specs: Iterable[RunSpec]) -> str:
    """Return devices, names of GPUs and precisions in words, as far as this machine knows them."""
    if launcher.elsewhere:
        where = f"{launcher.device} of the machines of launcher={launcher.name}"
    else:
        names = {device: device_name(device) for device in devices_of(launcher)}
        where = ", ".join(name if name == "cpu" else f"{name} ({names[name]})" for name in names)
    return f"device: {where}, precision {', '.join(dict.fromkeys(spec.precision for spec in specs))}"


def device_warning(launcher: LauncherSettings) -> str:
    """Return a warning where a sweep that may use any device leaves a GPU of this machine unused."""
    if launcher.elsewhere or launcher.device != "auto":
        return ""
    return unused_gpu(find_device("auto"))


def check_precisions(launcher: LauncherSettings, specs: Iterable[RunSpec]) -> None:
    """Refuse precisions for which the devices of this machine are no good; see `check_int8`."""
    for precision in {spec.precision for spec in specs} if not launcher.elsewhere else ():
        for device in devices_of(launcher):
            check_int8(precision, device, launcher.compile)


def memory_lines(launcher: LauncherSettings, specs: Sequence[RunSpec]) -> list[str]:
    """Return what runs need of the memory of a GPU of this machine, and which probably lack it.

    No GPU is opened, so that what others use of its memory is not known.
    """
    if launcher.elsewhere or not specs or not (device := devices_of(launcher)[0]).startswith("cuda"):
        return []
    import torch

    from petl_bench.launch import memory

    total = torch.cuda.get_device_properties(device).total_memory
    known = {count: spec.adapter.name for spec, count in memory.needs(specs)}
    if not known:
        return []
    least, most = min(known), max(known)
    text = f"about {most / 1e9:.1f} GB ({known[most]})"
    if len(known) > 1:
        text = f"{least / 1e9:.1f} GB ({known[least]}) to {text}"
    held = [f"memory: a run needs {text} of the {total / 1e9:.1f} GB of {device}"]
    return held + [f"warning: {fault}" for fault in memory.lacking(specs, total, 1, device)]
