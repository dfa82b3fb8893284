"""Provenance of a row: code revision, versions, hardware and memory."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import PIL
import timm
import torch

import petl_bench
from petl_bench import __version__
from petl_bench.device import device_name
from petl_bench.errors import counted

KERNEL_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that choose other kernels for matrix products than the processor would get."""


def provenance(device: str) -> dict[str, object]:
    """Return the columns of a row that state what produced it; they are not part of its identity."""
    return {
        "device": device_name(device),
        "kernels": kernels(device),
        "version": __version__,
        "torch_version": str(torch.__version__),  # its own class would make every reader import torch
        "timm_version": timm.__version__,
        "pillow_version": PIL.__version__,
        **_git_state(),
    }


def reset_peak_memory(device: str) -> None:
    """Begin to measure the peak memory anew, at the start of a run."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # not on Linux, where the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Return the peak memory since `reset_peak_memory` in bytes, on a GPU or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def kernels(device: str) -> str:
    """Return what decides the order of sums in this process, for example `AVX2, 1 thread`.

    It is the instruction set of torch's kernels (`ATEN_CPU_CAPABILITY` may lower it), the number of threads,
    and KERNEL_VARIABLES that are set; of a GPU its compute capability, and where float32 numbers are rounded
    to TF32.
    """
    if device.startswith("cuda"):
        backends: Any = torch.backends
        where = {"products": backends.cuda.matmul, "convolutions": backends.cudnn.conv}
        tf32 = " and ".join(name for name, held in where.items() if held.fp32_precision == "tf32")
        maker = "CUDA" if torch.version.hip is None else "HIP"
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        return f"{maker} {capability}, {f'TF32 in {tf32}' if tf32 else 'no TF32'}"
    chosen = [f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ]
    threads = counted(torch.get_num_threads(), "thread")
    return ", ".join([torch.backends.cpu.get_cpu_capability(), threads, *chosen])


@cache
def _git_state() -> dict[str, object]:
    """Return the Git revision of the checkout, and whether it has changes; empty for an installed wheel."""
    top = Path(petl_bench.__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(top), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != top:
            return {"git_revision": "", "git_dirty": False}
        dirty = bool(git("status", "--porcelain", "--", "petl_bench", "conf", "data_manifests"))
        return {"git_revision": git("rev-parse", "HEAD"), "git_dirty": dirty}
    except (OSError, subprocess.CalledProcessError):
        return {"git_revision": "", "git_dirty": False}
