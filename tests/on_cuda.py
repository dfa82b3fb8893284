"""Whole runs of many methods on a pretended GPU, in one process.

`python -m tests.on_cuda FOLDER FAMILY WHOLE METHOD...` tries each METHOD in each precision that WHOLE, a JSON
object, has. The methods that it lists for the precision are trained for two epochs of two steps, on the CPU
and on the second of two pretended GPUs; there the training is interrupted after its first epoch and resumed,
and the file is packed, loaded and evaluated. The others make one step on that GPU, and their file is packed,
loaded and evaluated there. A JSON object for each method and precision says what was found.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import timm.layers
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from petl_bench import packing
from petl_bench.errors import UserError
from petl_bench.run import training
from petl_bench.run.execute import score
from petl_bench.run.identity import backbone_sha256
from petl_bench.run.packed import pack
from petl_bench.run.training import train
from petl_bench.train import TrainingState
from petl_bench.train.augment import BatchAugmentation
from petl_bench.types import RunSpec, Runtime, method
from tests import pretended_cuda, tiny
from tests.pretended_cuda import DEVICES
from tests.test_protocols import Tree, made

SIZES = {"train": 8, "val": 8, "test": 8}
FEW = {"train": 1, "val": 1, "test": 2}
SETTINGS = {"train__batch_size": 8, "train__epochs": 2, "precision": "fp32", "scale": 1, "protocol": "fixed"}
GPU = "cuda:1"


class Stopped(Exception):
    """Stands for the end of a process."""


def spec_of(tree: Tree, name: str, family: str, precision: str) -> RunSpec:
    """A run of a method at 1 bit, where it has codes, on the small backbone of a family."""
    model = tiny.model_spec(
        name, backbone=tiny.FAMILIES[family], **({"epochs": 1} if name == "lt_sft" else {})
    )
    spec = replace(planned(tree), adapter=model.adapter, backbone=model.backbone, precision=precision)
    return replace(spec, bits=method(name).unused.get("bits", 1))


@cache
def planned(tree: Tree) -> RunSpec:
    brief = tree.root.parent.name == "brief"
    few = {"train__batch_size": 2, "train__epochs": 1, "packing": "raw"} if brief else {}
    return tree.spec(**SETTINGS | few)


@contextmanager
def stopped_after_the_first_checkpoint() -> Iterator[None]:
    save = TrainingState.save

    def once(self: TrainingState, *given: object) -> None:
        save(self, *given)
        if self.path is not None:
            raise Stopped

    TrainingState.save = once
    try:
        with suppress(Stopped):
            yield
    finally:
        TrainingState.save = save


def trained(spec: RunSpec, runtime: Runtime, folder: Path | None = None) -> tuple[bytes, list[float]]:
    """The bytes of the adapter file of a training, and its losses."""
    found = train(spec, runtime, checkpoints=folder)
    return packing.dump(pack(found.adapted, spec, backbone_sha256(spec.backbone), runtime)), found.losses


def found(tree: Tree, name: str, family: str, precision: str) -> dict[str, object]:
    spec, here = spec_of(tree, name, family, precision), tree.runtime()
    try:
        with _disable_current_modes():  # on the CPU alone, which is much faster so
            expected, expected_losses = trained(spec, here)
    except UserError as error:
        return {"refused": str(error)}
    there = replace(here, device=GPU, checkpoint=1)
    checkpoints = tree.cache / f"{name}-{family}-{precision}"
    with stopped_after_the_first_checkpoint():
        train(spec, there, checkpoints=checkpoints)
    DEVICES.forget()
    data, losses = trained(spec, there, checkpoints)
    resumed, step = len(DEVICES.steps), DEVICES.last_step
    file = packing.load(data, name)
    with _disable_current_modes():
        scored_here = score(file, spec.backbone, spec.task, here, name)
    scored_there = score(file, spec.backbone, spec.task, there, name)
    return {
        "steps": resumed,
        "operations": step.operations.total(),
        "waits": dict(step.waits),
        "losses": [*zip(expected_losses, losses, strict=True)],
        "same_file": data == expected,
        "same_length": len(data) == len(expected),
        "same_classes": scored_here.digest == scored_there.digest,
    }


@contextmanager
def counted_from_the_batch() -> Iterator[None]:
    """Count operations and waits of a step from the time when its images are on the GPU."""
    plain = BatchAugmentation.__call__

    def augmented(self: BatchAugmentation, *given: Tensor) -> tuple[Tensor, Tensor]:
        made = plain(self, *given)
        DEVICES.forget()
        return made

    BatchAugmentation.__call__ = augmented
    try:
        yield
    finally:
        BatchAugmentation.__call__ = plain


def briefly(tree: Tree, name: str, family: str, precision: str) -> dict[str, object]:
    spec, there = spec_of(tree, name, family, precision), replace(tree.runtime(), device=GPU)
    try:
        with counted_from_the_batch():
            data, losses = trained(spec, there)
    except UserError as error:
        return {"refused": str(error)}
    scored = score(packing.load(data, name), spec.backbone, spec.task, there, name)
    return {"steps": len(losses), "waits": dict(DEVICES.last_step.waits), "images": scored.images}


def main(folder: str, family: str, methods: str) -> None:
    timm.layers.set_fused_attn(enable=False)  # fused, the two devices add up in different orders
    trees = [made(Path(folder) / kind, sizes) for kind, sizes in (("whole", SIZES), ("brief", FEW))]
    pretended_cuda.install(allowed={1})
    training.sources = lambda spec: {}  # digests of the source code take as long as a step
    for precision, (whole, brief) in json.loads(methods).items():
        for name in whole + brief:
            kind, tree = (found, trees[0]) if name in whole else (briefly, trees[1])
            try:
                result = kind(tree, name, family, precision)
            except Exception:
                result = {"error": traceback.format_exc()}
            print(json.dumps({"precision": precision, "method": name} | result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
