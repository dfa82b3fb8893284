"""The device of a run, found without importing torch where that is possible."""

from __future__ import annotations

from ctypes.util import find_library
from pathlib import Path

from petl_bench.errors import UserError

_CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls processors' bfloat16 products: x86, x86, Arm."""


def find_device(name: str) -> str:
    """`auto` settled: the first GPU where torch sees one, else the CPU.

    Raises:
        UserError: torch has no such device here.
    """
    if name == "cpu" or (name == "auto" and find_library("cuda") is None):
        return "cpu"  # known without the seconds that importing torch takes
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"launcher.device={name}: torch has no such device here; auto or cpu") from error
    return name


def find_devices(name: str) -> list[str]:
    """Every GPU that torch sees for `auto` and `cuda`, or the CPU; else the one device of that name.

    Raises:
        UserError: torch has no such device here.
    """
    if name not in ("auto", "cuda"):
        return [find_device(name)]
    first = find_device(name)
    if first == "cpu":
        return [first]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def find_precision(name: str, device: str) -> str:
    """`auto` settled: bf16 where the device has it in hardware, else fp32.

    Args:
        device: as `find_device` or a user names it.
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
