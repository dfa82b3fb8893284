"""Memory that a run needs on a GPU, told before anything runs, without data, weights or the GPU.

The model is built on torch's device `meta`, whose tensors have shapes and no values. It makes one step of its
training there, in which all bytes of its tensors are counted. Attention is counted as a GPU computes it, in
one piece that keeps its inputs and outputs. To that come the states of AdamW, and the training images where
they stay on the GPU. What the allocator of a GPU loses to rounding, and the work space of its libraries, is
covered by `SPARE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from petl_bench.backbones import families
from petl_bench.backbones.sharing import SharedCopy
from petl_bench.errors import UserError
from petl_bench.model import Adapted, assemble
from petl_bench.train import Allocations
from petl_bench.types import FLOAT_BITS, RunSpec

META = torch.device("meta")
SPARE = 1.1, 0.3e9
"""Factor and bytes by which the memory of a GPU must exceed what tensors need."""
MOMENTS = 2
"""States of AdamW for each parameter, in the parameter's own type."""


class _Attention(torch.autograd.Function):
    """The memory of fused attention: inputs, output and one number a row are kept, no matrix of weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _FusedAttention(TorchFunctionMode):
    """Context in which attention is counted as a GPU computes it."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention, and call any other function as it is."""
        if function is functional.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return function(*args, **(kwargs or {}))


def needed(spec: RunSpec) -> int:
    """Return the bytes of all tensors at the peak of a training of a run.

    Raises:
        UserError: see `petl_bench.model.assemble`.
    """
    adapted, recipe = _on_meta(spec), spec.train
    trained = bytes_of(adapted.trainable)
    held = bytes_of([*chain(adapted.network.parameters(), adapted.network.buffers()), *adapted.trainable])
    with Allocations() as counted, _FusedAttention():
        _step(adapted, recipe.batch_size, spec)
    images = 0 if recipe.augment.crop else spec.task.training_images
    return held + MOMENTS * trained + counted.peak + images * 3 * spec.backbone.image_size**2


def _step(adapted: Adapted, batch: int, spec: RunSpec) -> None:
    """Make a step of a training, without its optimizer."""
    size = spec.backbone.image_size
    images = torch.empty(batch, 3, size, size, device=META)
    labels = torch.empty(batch, dtype=torch.int64, device=META)
    network = adapted.network.train()
    passes = 2 if adapted.adapter.attached.consistency else 1
    loss = sum(
        (functional.cross_entropy(network(images), labels) for _ in range(passes)),
        torch.zeros((), device=META),
    )
    loss.backward()


def _on_meta(spec: RunSpec) -> Adapted:
    """Return the prepared model of a run on `meta`; what a calibration would choose is left open.

    A method that quantizes a part of the backbone's weights when it is attached is built without
    quantization, whose own tensors are small.
    """
    model = spec.candidates[0].model
    backbone = replace(model.backbone, weights="random")
    for bits in (model.bits, FLOAT_BITS):
        with META:
            network, sites = families.build(backbone, spec.train.drop_path)
        held = SharedCopy(network, sites, {})
        try:
            adapted = assemble(
                replace(model, bits=bits), activations=spec.train.activations, backbone=held, start=spec.start
            )
        except (RuntimeError, IndexError) as error:
            failure = error
        else:
            _move(adapted)
            adapted.prepare(spec.precision, META)
            return adapted
    raise failure


def _move(adapted: Adapted) -> None:
    """Move the float parameters to `meta`, since `prepare` keeps the kind of a parameter's tensor."""
    for component in (adapted.adapter, adapted.head):
        for parameter in (*chain.from_iterable(component.floats.values()), *component.attached.unstored):
            if not parameter.is_meta:
                moved = nn.Parameter(parameter.detach().to(META), parameter.requires_grad)
                torch.utils.swap_tensors(parameter, moved)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors; those that share memory count once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def needs(specs: Iterable[RunSpec]) -> Iterator[tuple[RunSpec, int]]:
    """Yield a run of each kind that needs memory of its own, and the bytes that it needs.

    Runs of a kind differ in their bits, seed, scale and task. Of methods that read values of tensors, which
    those of plug-ins may do, nothing is known, nor of models that cannot be built, which a sweep refuses.
    """
    seen = set()
    for spec in specs:
        recipe = spec.train
        key = (
            *(spec.backbone, spec.adapter, spec.hidden, spec.precision, recipe.batch_size),
            *(recipe.activations, recipe.augment.crop),
        )
        if key not in seen:
            seen.add(key)
            with suppress(UserError, RuntimeError, LookupError, TypeError, ValueError):
                yield spec, needed(spec)


def warn(specs: Iterable[RunSpec], device: str, share: int, say: Callable[[str], None]) -> None:
    """Say which runs probably do not fit into the free memory of an opened GPU.

    They are not refused: the estimate was never compared with a GPU, and others may fit.

    Args:
        specs, share: see `lacking`.
        device: device of the runs; nothing is said of a CPU.
        say: function that is told.
    """
    if device.startswith("cuda"):
        for fault in lacking(specs, torch.cuda.mem_get_info(device)[0], share, device):
            say(fault)


def lacking(specs: Iterable[RunSpec], free: float, share: int, where: str) -> Iterator[str]:
    """Yield a warning for each kind of run that a GPU probably lacks memory for.

    Args:
        specs: the runs.
        free: free bytes of the GPU.
        share: number of runs that are on it at a time.
        where: name of the GPU.
    """
    factor, constant = SPARE
    for spec, count in needs(specs):
        if count * factor + constant > free / share:
            runs = f" for each of {share} runs" if share > 1 else ""
            yield (
                f"{where}: {free / share / 1e9:.1f} GB are free{runs}, and {spec.adapter.name} on "
                f"{spec.backbone.display_name} with train.batch_size={spec.train.batch_size} in "
                f"{spec.precision} needs about {count / 1e9:.1f} GB; precision=bf16, "
                "train.activations=4bit or a smaller batch need less"
            )
