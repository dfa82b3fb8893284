"""Devices of runs, found without importing torch where that is possible, and without opening them."""

from __future__ import annotations

import os
import platform
import warnings
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

from petl_bench.errors import UserError

_CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of /proc/cpuinfo for bfloat16 matrix products: two of x86, one of Arm."""
_GPU_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
"""Device files of GPUs: of NVIDIA's driver, of AMD's, and of Windows' subsystem for Linux."""
_DRIVERS = {"cuda": "libcuda.so*", "amdhip64": "libamdhip64.so*"}
"""Libraries of the drivers: names for the linker, and names of their files."""


def find_device(name: str, key: str = "launcher.device=") -> str:
    """Return the device that a run of `launcher.device=name` uses; GPUs are not opened.

    Args:
        name: `auto` stands for the first GPU that torch sees, else for the CPU; other names are torch's.
        key: what stands before the name in messages.

    Raises:
        UserError: torch has no such device on this machine.
    """
    if name == "cpu" or (name == "auto" and not gpu_files() and not _driver(_libraries())):
        return "cpu"  # without importing torch, which takes seconds
    import torch

    if name == "auto":
        return "cuda:0" if _cuda()[0] else "cpu"
    kind, _, number = name.partition(":")
    is_there = (
        _cuda()[0] and int(number or 0) < torch.cuda.device_count() if kind == "cuda" else not _refusal(name)
    )
    if not is_there:
        reason = f" ({why})" if kind == "cuda" and (why := _cuda()[1]) else ""
        raise UserError(f"{key}{name}: torch has no such device here{reason}; use auto or cpu")
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


def open_device(name: str, key: str = "launcher.device=") -> None:
    """Use a device for the first time in this process, which on a GPU takes memory for a context.

    Raises:
        UserError: it cannot be used.
    """
    if name != "cpu" and (reason := _refusal(name)):
        raise UserError(
            f"{key}{name}: this process cannot use it ({reason}); use another device, or a new process if it "
            "failed in this one before"
        )


def _refusal(name: str) -> str:
    """Return the first line of the error of torch at the use of a device; empty: it can be used."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def gpu_files() -> list[str]:
    """Return the device files of GPUs of this machine, which are there without a driver's library too."""
    return sorted(str(path) for pattern in _GPU_FILES for path in Path("/").glob(pattern[1:]))


def _libraries() -> str:
    return os.environ.get("LD_LIBRARY_PATH", "")


@cache
def _driver(libraries: str) -> bool:
    """Return whether the library of a GPU's driver is found by the linker, or in the folders `libraries`.

    Looking for it starts several programs, so each process does so once.
    """
    if any(find_library(name) for name in _DRIVERS):
        return True
    folders = [Path(folder) for folder in libraries.split(os.pathsep) if folder]
    return any(any(folder.glob(files)) for folder in folders for files in _DRIVERS.values())


def _cuda() -> tuple[bool, str]:
    """Return whether torch can use GPUs, and otherwise the reason that it states, if any."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return True, ""
    if torch.version.cuda is None and torch.version.hip is None:
        return False, f"torch {torch.__version__} is built without CUDA and ROCm"
    return False, str(said[0].message).partition(". ")[0] if said else ""


def unused_gpu(device: str) -> str:
    """Return a warning if this machine shows a GPU that runs do not use although any device may be used.

    Args:
        device: what `auto` stands for (`find_device`).
    """
    found = gpu_files()
    if device != "cpu" or not found or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    reason = _cuda()[1] or (f"CUDA_VISIBLE_DEVICES={visible} may name none" if visible else "")
    return (
        f"this machine shows a GPU ({found[0]}), but torch does not use it{': ' + reason if reason else ''}; "
        "runs use the CPU"
    )


def find_precision(name: str, device: str) -> str:
    """Return the precision that `precision=name` stands for.

    Args:
        name: `auto` stands for bf16 where the device computes it in hardware, else for fp32.
        device: any name that `find_device` accepts.
    """
    if name != "auto":
        return name
    return "bf16" if has_bf16(find_device(device)) else "fp32"


def check_int8(precision: str, device: str, compiled: str) -> None:
    """Refuse trainings in int8 on a GPU that launches each operation by itself.

    Each linear makes ten passes over its input and output there, and only torch.compile joins them.

    Args:
        precision: resolved precision.
        device: device of the training.
        compiled: mode of torch.compile.

    Raises:
        UserError: the precision is int8, the device a GPU, and the training is not compiled.
    """
    if precision == "int8" and device.startswith("cuda") and compiled == "none":
        raise UserError(
            f"precision=int8: on {device} each product would be ten passes over its numbers, with more than "
            "twice the operations of bf16; use precision=bf16, launcher.compile=default, which joins them, "
            "or launcher.device=cpu"
        )


def has_bf16(device: str) -> bool:
    """Return whether a device computes matrix products of bfloat16 numbers in hardware."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(processor_flags() & _CPU_BF16)


def processor_flags() -> set[str]:
    """Return the features of the processor, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}


def device_name(device: str) -> str:
    """Return the model name of a GPU or of the processor (its architecture if the name is unknown)."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores_here() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_process(device: str, threads: int) -> None:
    """Set what decides the numbers of this process: its threads, and what float32 means on a GPU.

    A GPU becomes the current one, which threads that pin memory and libraries use. Products and convolutions
    of float32 numbers are computed in float32; by default cuDNN would round their factors to TF32.

    Args:
        device: device of the computation.
        threads: CPU threads.
    """
    import torch

    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        if ":" in device:
            torch.cuda.set_device(device)
        backends: Any = torch.backends
        for operations in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            operations.fp32_precision = "ieee"
