"""Provenance of a row: code revision, versions, hardware and memory."""

from __future__ import annotations

import platform
import resource
import subprocess
from functools import cache
from pathlib import Path

import PIL
import torch

import petl_bench
from petl_bench import __version__


def provenance(device: str) -> dict[str, object]:
    """Return the columns of a row that state what produced it; they are not part of its identity."""
    return {
        "device": device_name(device),
        "version": __version__,
        "torch_version": str(torch.__version__),  # its own class would make every reader import torch
        "pillow_version": PIL.__version__,
        **_git_state(),
    }


def peak_memory(device: str) -> int:
    """Return the peak memory in bytes, on a GPU or of this process so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: str) -> str:
    """Return the model name of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()


def _processor() -> str:
    """Return the model name of the processor, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
