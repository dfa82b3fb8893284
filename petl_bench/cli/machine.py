"""Examination of this machine for `petl-bench doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from petl_bench import __version__
from petl_bench.errors import counted
from petl_bench.types import DataSettings

PATIENCE = 3
"""Seconds in which the hub must answer."""
LEAST_MEMORY, LEAST_DISK, LEAST_SHARED = 2.0, 5.0, 1.0
"""Free gigabytes below which a hint is given: memory, disk, and memory that processes share."""
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}
"""Flags of /proc/cpuinfo for products of 8-bit integers, of x86 and of Arm."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        what: subject, one word.
        state: `ok`, `hint` (something is missing that not every run needs) or `problem`.
        text: what was found.
        advice: what to do about it; empty: nothing.
        facts: the same as values.
    """

    what: str
    state: Literal["ok", "hint", "problem"]
    text: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def examined() -> list[Finding]:
    """Examine this machine; an examination that fails is a problem of its own."""
    found: list[Finding] = []
    for examine in (versions, devices, precisions, memory, disk, data, caches, hub, engines):
        try:
            found += examine()
        except Exception as error:
            text = f"cannot be examined: {type(error).__name__}: {error}"
            found.append(Finding(examine.__name__, "problem", text))
    return found


def versions() -> Iterator[Finding]:
    """Name the versions of petl-bench, Python and torch, and what torch is built for."""
    import torch

    built = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    names = ", ".join(f"{name} {version}" for name, version in built.items() if version) or "the CPU alone"
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"petl-bench {__version__}, Python {python}, torch {torch.__version__} built for {names}"
    facts = {"petl_bench": __version__, "python": python, "torch": str(torch.__version__), **built}
    yield Finding("versions", "ok", text, facts=facts)


def devices() -> Iterator[Finding]:
    """List the devices that torch uses, and GPUs that it does not use."""
    from petl_bench.device import cores_here, device_name, find_device, find_devices, gpu_files, unused_gpu

    cores = cores_here()
    text = f"{device_name('cpu')}, {counted(cores, 'core')} for this process"
    yield Finding("cpu", "ok", text, facts={"name": device_name("cpu"), "cores": cores})
    chosen = find_devices("auto")
    if chosen != ["cpu"]:
        import torch

        for device in chosen:
            gigabytes = torch.cuda.get_device_properties(device).total_memory / 1e9
            facts = {"device": device, "name": device_name(device), "memory_gb": round(gigabytes, 1)}
            yield Finding("gpu", "ok", f"{device}: {device_name(device)}, {gigabytes:.0f} GB", facts=facts)
    elif warning := unused_gpu(find_device("auto")):
        advice = (
            "install the driver, or a torch that is built for it (pytorch.org); a container gets the GPU by "
            "docker run --gpus all"
        )
        yield Finding("gpu", "problem", warning.partition(";")[0], advice, {"files": gpu_files()})
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = f" (CUDA_VISIBLE_DEVICES={visible!r} hides those of this machine)"
        held = hidden if gpu_files() and visible is not None else ""
        text = f"none{held}: runs use the CPU; sweeps of large backbones take long there"
        advice = "use a small backbone (backbone=pocket), or another machine (launcher=slurm, launcher=ray)"
        yield Finding("gpu", "hint", text, advice, {"files": gpu_files()})


def precisions() -> Iterator[Finding]:
    """Name the precisions that the first device computes in hardware."""
    from petl_bench.device import find_device, find_precision, has_bf16, processor_flags

    device = find_device("auto")
    int8 = True if device != "cpu" else bool(INT8_FLAGS & processor_flags())
    held = {"fp32": True, "bf16": has_bf16(device), "int8": int8}
    text = ", ".join(name for name, there in held.items() if there) + f" in hardware of {device}"
    chosen = find_precision("auto", device)
    yield Finding("precision", "ok", f"{text}; precision=auto is {chosen}", facts=held | {"auto": chosen})


def memory() -> Iterator[Finding]:
    """Compare the free memory, and that which processes share, with what runs need."""
    free, total = _memory()
    advice = "use fewer processes (launcher.workers) or smaller batches (train.batch_size)"
    text, facts = (
        f"{free:.1f} of {total:.1f} GB free",
        {"free_gb": round(free, 1), "total_gb": round(total, 1)},
    )
    yield _enough("memory", free, LEAST_MEMORY, text, advice, facts)
    shared = Path("/dev/shm")  # noqa: S108 - where processes of torch share memory on Linux
    if shared.is_dir():
        room = shutil.disk_usage(shared).free / 1e9
        advice = "loaders (launcher.loaders) need more: docker run --shm-size=8g, or launcher.loaders=0"
        text = f"{room:.1f} GB that processes may share"
        yield _enough("shared", room, LEAST_SHARED, text, advice, {"free_gb": round(room, 1)})


def disk() -> Iterator[Finding]:
    """Measure the free space of the working directory, where stores are by default."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    writable = os.access(here, os.W_OK)
    facts = {"folder": str(here), "free_gb": round(free, 1), "writable": writable}
    if not writable:
        yield Finding("disk", "problem", f"{here} cannot be written", "name another --store", facts)
        return
    advice = "name a --store and a data.cache elsewhere"
    yield _enough("disk", free, LEAST_DISK, f"{free:.1f} GB free in {here}", advice, facts)


def data() -> Iterator[Finding]:
    """Look for the folders of the benchmarks' tasks below the data root."""
    from petl_bench.data import manifests

    root = Path(DataSettings().folder)
    wanted = [m for m in manifests().values() if m.folders]
    there = [m.name for m in wanted if any((root / folder).is_dir() for folder in m.folders)]
    facts = {"root": str(root), "tasks": there}
    if there:
        suites = Counter(manifests()[name].suite for name in there)
        text = ", ".join(f"{count} tasks of {suite}" for suite, count in sorted(suites.items()))
        advice = "petl-bench data verify SUITE checks them"
        yield Finding("data", "ok", f"{text} in {root}", advice, facts)
        return
    text = f"no benchmark in {root}; bundled tasks and your own folders need none"
    advice = "petl-bench data prepare SUITE, or name the folder with data.root or $PETL_BENCH_DATA"
    yield Finding("data", "hint", text, advice, facts)


def caches() -> Iterator[Finding]:
    """Name the folders of decoded images and of downloads, with their sizes; none is made."""
    from huggingface_hub import constants

    from petl_bench.data.file_facts import cache_path

    places = {
        "cache": (cache_path(DataSettings().decoded), "decoded images", "data.cache or $PETL_BENCH_CACHE"),
        "downloads": (Path(constants.HF_HUB_CACHE), "weights and data of the hub", "$HF_HOME"),
    }
    for what, (folder, meaning, setting) in places.items():
        text = f"{meaning}: {_size(folder):.1f} GB in {folder}" if folder.is_dir() else f"none yet: {folder}"
        writable = _writable(folder)
        facts = {"folder": str(folder), "size_gb": round(_size(folder), 1), "writable": writable}
        if writable:
            yield Finding(what, "ok", text, facts=facts)
        else:
            text, advice = f"{meaning}: {folder} cannot be written", f"name another folder by {setting}"
            yield Finding(what, "hint", text, advice, facts)


def _size(folder: Path) -> float:
    """Return the size of the files below a folder in GB, as far as they can be seen."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # another process has deleted it
                size += os.lstat(os.path.join(parent, name)).st_size
    return size / 1e9


def _writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def hub() -> Iterator[Finding]:
    """Ask the hub for an answer within a few seconds."""
    from huggingface_hub import constants, get_session

    where, facts = constants.ENDPOINT, {"endpoint": constants.ENDPOINT, "reachable": False}
    offline = "weights that are not in the cache cannot be downloaded; backbone=pocket is bundled"
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "hint", "switched off by HF_HUB_OFFLINE", offline, facts)
        return
    try:
        get_session().head(where, timeout=PATIENCE)
    except Exception as error:  # of the client's HTTP library
        text = f"{where} does not answer within {PATIENCE} s ({type(error).__name__})"
        mirror = "check HF_ENDPOINT" if "HF_ENDPOINT" in os.environ else "HF_ENDPOINT names a mirror"
        yield Finding("hub", "hint", text, f"{offline}; {mirror}", facts)
        return
    yield Finding("hub", "ok", f"{where} answers", facts=facts | {"reachable": True})


def engines() -> Iterator[Finding]:
    """Look for Slurm and Ray, and for the packages that use them."""
    packages: dict[str, tuple[str, Callable[[], bool], str]] = {
        "slurm": ("submitit", lambda: shutil.which("sbatch") is not None, "sbatch is on the PATH"),
        "ray": ("ray", lambda: "RAY_ADDRESS" in os.environ, "RAY_ADDRESS names a cluster"),
    }
    for name, (package, at_hand, sign) in packages.items():
        installed, there = find_spec(package) is not None, at_hand()
        facts = {"installed": installed, "found": there}
        text = f"{sign if there else 'none found'}; {package} is {'' if installed else 'not '}installed"
        missing = f"pip install 'petl-bench[{name}]' for launcher={name}"
        state: Literal["ok", "hint"] = "hint" if there and not installed else "ok"
        yield Finding(name, state, text, "" if installed or not there else missing, facts)


def _enough(what: str, free: float, least: float, text: str, advice: str, facts: dict[str, Any]) -> Finding:
    fine = free >= least
    return Finding(what, "ok" if fine else "hint", text, "" if fine else advice, facts)


def _memory() -> tuple[float, float]:
    """Return free and total memory in GB, within the limit of a container."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError):  # not Linux
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = total
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no limit
        return free / 1e9, total / 1e9
    return min(free, limit - used) / 1e9, min(total, limit) / 1e9
