"""Devices of runs, found without importing torch where that is possible."""

from __future__ import annotations

from ctypes.util import find_library
from pathlib import Path

from petl_bench.errors import UserError

_CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of /proc/cpuinfo for bfloat16 matrix products: two of x86, one of Arm."""


def find_device(name: str, key: str = "launcher.device=") -> str:
    """Return the device that a run of `launcher.device=name` uses.

    Args:
        name: `auto` stands for the first GPU that torch sees, else for the CPU; other names are torch's.
        key: what stands before the name in messages.

    Raises:
        UserError: torch has no such device on this machine.
    """
    if name == "cpu" or (name == "auto" and find_library("cuda") is None):
        return "cpu"  # without importing torch, which takes seconds
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{key}{name}: torch has no such device here; use auto or cpu") from error
    return name


def find_devices(name: str) -> list[str]:
    """Return all devices that `launcher.device=name` stands for.

    Args:
        name: `auto` and `cuda` stand for every GPU that torch sees, or for the CPU if there is none; any
            other name stands for that device alone.

    Raises:
        UserError: torch has no such device on this machine.
    """
    if name not in ("auto", "cuda"):
        return [find_device(name)]
    first = find_device(name)
    if first == "cpu":
        return [first]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def find_precision(name: str, device: str) -> str:
    """Return the precision that `precision=name` stands for.

    Args:
        name: `auto` stands for bf16 where the device computes it in hardware, else for fp32.
        device: any name that `find_device` accepts.
    """
    if name != "auto":
        return name
    return "bf16" if _has_bf16(find_device(device)) else "fp32"


def _has_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    words = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(words & _CPU_BF16)
