"""A pretended CUDA: tensors that report cuda:N, hold real values on the CPU, and obey the rules of a GPU.

`install` makes torch describe pretended GPUs. There is no way back, so it belongs in a process of its own.
Each operation on a tensor of a GPU computes its values on the CPU, after these checks:

- All tensors and generators of an operation are on one device; only CPU scalars may join a GPU's tensors.
- `torch._int_mm` gets the shapes and strides that CUDA's has kernels for.
- No tensor is created on a GPU that the process is not to use.

Counted are operations that compute or copy something (views do not), and the waits of the host for a GPU:
values read on the host, indices by masks, and copies to and from a GPU that are not asynchronous or not from
pinned memory. A step of a training ends with the fused optimizer; `DEVICES.steps` has the counts of each.

Speed, memory, rounding and kernels of a real GPU are not pretended.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torch.utils.weak import WeakIdKeyDictionary

from tests.pretended_devices import (
    BACKEND,
    COPIES,
    DEVICES,
    INDEXING,
    VIEWS,
    WAITING,
    Counts,
    check_int_mm,
    facts,
    leaves,
    mapped,
)


def place() -> str:
    """The line of petl_bench that is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None and "/petl_bench/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/petl_bench/')[2]}:{frame.f_lineno}"


def wait(why: str) -> None:
    DEVICES.now.waits[f"{why} at {place()}"] += 1


class OnGPU(torch.Tensor):
    """A tensor of a pretended GPU; `held` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> OnGPU:
        if device.index not in DEVICES.allowed:
            raise AssertionError(f"a tensor is created on {device}, which this process is not to use")
        if DEVICES.most is not None and held.numel() > DEVICES.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
        DEVICES.opened.add(device.index)
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=f"{BACKEND}:0")
        made.held, made.place = held, device
        return made

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return self.place.index

    def numpy(self, **_: object) -> None:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() first")

    def __repr__(self, **_: object) -> str:
        return f"tensor(..., device='{self.place}', size={tuple(self.shape)}, dtype={self.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["held"], self.place

    @staticmethod
    def __tensor_unflatten__(held: dict[str, torch.Tensor], device: torch.device, *_: object) -> OnGPU:
        return OnGPU(held["held"], device)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(operation, args, kwargs or {})


class Creating(TorchDispatchMode):
    """Sends operations without a tensor of a GPU here, too: those that create one."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its guard takes as long as a small operation, and nothing is compiled here

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(operation, args, kwargs or {})


class Generator(torch.Generator):
    """A generator of a pretended GPU."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        device = torch.device(device)
        made = super().__new__(cls)
        made.place = on_current(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.place


PINNED = WeakIdKeyDictionary()


def on_current(device: torch.device) -> torch.device:
    return torch.device("cuda", DEVICES.current) if device == torch.device("cuda") else device


def dispatch(operation: Any, args: Any, kwargs: Any) -> Any:
    """Check an operation, count it, and compute it on the CPU."""
    flat = leaves(kwargs.values(), leaves(args, []))
    ours = [a for a in flat if isinstance(a, OnGPU)]
    asked = kwargs.get("device")
    if asked is not None:
        asked = torch.device(asked)
        # torch itself asks for the device of a tensor that it has just been given, below `device`.
        asked = (ours[0].place if ours else DEVICES.latest) if asked.type == BACKEND else on_current(asked)
    if not ours and (asked is None or asked.type != "cuda"):
        return operation(*args, **kwargs)
    known = facts(operation)
    name = known.name
    if message := DEVICES.failing.get(name):
        raise RuntimeError(message)
    DEVICES.latest = ours[0].place if ours else DEVICES.latest
    check_devices(name, args, flat, ours, kwargs.get("generator"))
    if name == "aten::_int_mm":
        check_int_mm(*args)
    if known.composite:
        with Creating():
            return operation.decompose(*args, **kwargs)
    target = count(name, args, kwargs, asked if asked is not None else ours[0].place)
    named = {key: mapped(on_cpu, value) for key, value in kwargs.items()}
    named |= {"device": torch.device("cpu")} if asked is not None else {}
    if named.get("pin_memory"):
        named["pin_memory"] = False
    result = operation(*mapped(on_cpu, args), **named)
    if target.type != "cuda":
        return args[0] if name == "aten::copy_" else result
    result = mapped(lambda value: on_gpu(value, target), result)
    return return_and_correct_aliasing(operation, args, kwargs, result) if known.aliases else result


def on_cpu(value: Any) -> Any:
    return value.held if isinstance(value, OnGPU) else value


def on_gpu(value: Any, device: torch.device) -> Any:
    return OnGPU(value, device) if isinstance(value, torch.Tensor) and type(value) is not OnGPU else value


def check_devices(name: str, args: Any, flat: list[Any], ours: list[OnGPU], generator: Any) -> None:
    """Refuse what a GPU refuses: tensors of two devices, and a generator of another device."""
    used = {a.place for a in ours}
    others = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, OnGPU)]
    large = [tuple(a.shape) for a in others if a.dim() and not a.is_meta]
    by_index = name in INDEXING and isinstance(args[0], OnGPU)
    if name not in COPIES and ours and (len(used) > 1 or (large and not by_index)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} has {used} and {large} on the CPU"
        )
    if ours and generator is not None and generator.device not in used:
        raise RuntimeError(
            f"Expected a 'cuda' device type for generator but found {generator.device} in {name}"
        )
    if by_index:
        for index in (a for a in args[1] or [] if a is not None):
            if not isinstance(index, OnGPU) and index.dim():
                wait("index on the CPU")
            elif index.dtype in (torch.bool, torch.uint8):
                wait("index by a mask")


def count(name: str, args: Any, kwargs: Any, target: torch.device) -> torch.device:
    """Count an operation, and return the device of its result."""
    short = name.removeprefix("aten::")
    if name == "aten::copy_":
        target = args[0].device
        count_copy(args[1], target, kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    elif name == "aten::_to_copy":
        count_copy(args[0], target, kwargs.get("non_blocking"))
    elif name in WAITING:
        wait(WAITING[name])
    if short not in VIEWS:
        DEVICES.now.operations[short] += 1
    if short.startswith("_fused_adam"):
        DEVICES.steps.append(DEVICES.now)
        DEVICES.now = Counts()
    return target


def count_copy(source: torch.Tensor, target: torch.device, at_once: Any) -> None:
    if source.device == target:
        return
    on_host = source if target.type == "cuda" else None
    if not at_once or (on_host is not None and not on_host.is_cuda and on_host not in PINNED):
        wait(f"copy from {source.device.type} to {target.type}")


def install(count: int = 2, allowed: set[int] | None = None, **more: Any) -> None:
    """Pretend GPUs in this process from now on.

    Args:
        count: number of GPUs.
        allowed: those on which tensors may be created; None: all.
        more: attributes of torch.cuda to set besides, for example `is_bf16_supported`.
    """
    if torch.Generator is Generator:
        return
    DEVICES.count, DEVICES.allowed = count, set(range(count)) if allowed is None else allowed
    properties = SimpleNamespace(name="Pretended GPU", major=9, minor=0, total_memory=80 * 2**30)

    def reset(device: Any = None) -> None:
        DEVICES.peak_resets += 1

    states: dict[Any, torch.Tensor] = {}
    replaced = {
        "is_available": lambda: True,
        "is_initialized": lambda: bool(DEVICES.opened),
        "device_count": lambda: DEVICES.count,
        "current_device": lambda: DEVICES.current,
        "set_device": lambda device: setattr(DEVICES, "current", torch.device(device).index),
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "synchronize": lambda device=None: None,
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 1,
        "mem_get_info": lambda device=None: (60 * 2**30, 80 * 2**30),
        "reset_peak_memory_stats": reset,
        "get_rng_state": lambda device="cuda": states.get(str(device), torch.zeros(16, dtype=torch.uint8)),
        "set_rng_state": lambda state, device="cuda": states.update({str(device): state}),
        **dict.fromkeys(("manual_seed", "manual_seed_all"), lambda seed: None),
        "_lazy_init": lambda: None,
        "_lazy_call": lambda call, **_: None,
    }
    for name, value in (replaced | more).items():
        setattr(torch.cuda, name, value)
    torch.Tensor.pin_memory = pinned
    torch.Tensor.is_pinned = lambda self, device=None: self in PINNED
    torch.Generator = Generator
    plain = torch._C.TensorBase.data

    def set_data(self: torch.Tensor, value: torch.Tensor) -> None:
        if isinstance(value, OnGPU) or isinstance(self, OnGPU):
            parameter = isinstance(self, torch.nn.Parameter)
            new = torch.nn.Parameter(value, self.requires_grad) if parameter else value
            torch.utils.swap_tensors(self, new)
        else:
            plain.__set__(self, value)

    torch.Tensor.data = property(plain.__get__, set_data)
    # Wrapped tensors cannot become inference tensors, which differ from those of no_grad only in speed.
    torch.inference_mode.__enter__ = lambda self: (
        setattr(self, "guard", torch.no_grad()) or self.guard.__enter__()
    )
    torch.inference_mode.__exit__ = lambda self, *given: self.guard.__exit__(*given)
    _setup_privateuseone_for_python_backend(BACKEND)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes its values on the CPU
    Creating().__enter__()


def pinned(self: torch.Tensor, *_: object) -> torch.Tensor:
    """A copy in memory from which a GPU copies on its own."""
    made = self.clone()
    PINNED[made] = True
    return made
