"""Scenes on pretended GPUs, each in a process of its own: `python -m tests.gpu_scenes SCENE FOLDER`.

A scene prints a JSON object of what was found; tests.test_pretended_cuda says what must be.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.utils._python_dispatch import _disable_current_modes

from petl_bench import device, packing
from petl_bench.data import Split
from petl_bench.launch.slurm import Chunk
from petl_bench.model import Adapted, assemble
from petl_bench.run.calibration import Calibration
from petl_bench.run.identity import backbone_sha256, job_of
from petl_bench.run.provenance import kernels
from petl_bench.run.training import train
from petl_bench.store import Store
from petl_bench.train import Allocations, Pixels, outputs
from petl_bench.train.augment import BatchAugmentation
from petl_bench.types import AugmentSpec, TrainSpec
from petl_bench.use import SharedBackbone
from tests import on_cuda, pretended_cuda, tiny
from tests.pretended_cuda import DEVICES
from tests.test_protocols import made

SINGLE = {"crop": True, "auto_augment": "rand-m9-mstd0.5-inc1"}
BATCHES = {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1}
AUGMENT = SINGLE | BATCHES | {"erasing": 0.5}
"""Everything that is random about images; the numbers of erasing are drawn by the device itself."""


def augmented(folder: Path) -> dict[str, Any]:
    """Losses of a training with every augmentation, on the CPU and on the second GPU; see the test."""
    tree = made(folder, on_cuda.SIZES)
    spec = on_cuda.spec_of(tree, "adaptformer", "VisionTransformer", "fp32")
    spec = replace(spec, train=replace(spec.train, augment=AugmentSpec(**AUGMENT)))
    runtime = replace(tree.runtime(), device=on_cuda.GPU, checkpoint=1, loaders=1)
    same = replace(spec, train=replace(spec.train, augment=AugmentSpec(**SINGLE, **BATCHES)))
    with _disable_current_modes():
        on_both = [train(same, replace(runtime, device="cpu", loaders=0)).losses]
    on_both.append(train(same, replace(runtime, loaders=0)).losses)
    losses = [train(spec, runtime).losses]
    waits = dict(DEVICES.last_step.waits)
    losses.append(train(spec, replace(runtime, loaders=0)).losses)
    runtime = replace(runtime, loaders=0)
    with on_cuda.stopped_after_the_first_checkpoint():
        train(spec, runtime, checkpoints=folder / "checkpoints")
    losses.append(train(spec, runtime, checkpoints=folder / "checkpoints").losses)
    return {"waits": waits, "losses": losses, "on_both": on_both}


def erased(folder: Path) -> dict[str, Any]:
    """Erase one batch on the CPU and on the second GPU, and return how the results compare."""
    recipe = replace(tiny.recipe(), augment=AugmentSpec(crop=True, erasing=1.0))
    assert isinstance(recipe, TrainSpec)
    images = torch.full((64, 3, 32, 32), 7.0)
    labels = torch.zeros(64, dtype=torch.int64)
    here, _ = BatchAugmentation(recipe, 2, 5, torch.device("cpu"))(images.clone(), labels)
    second = torch.device(on_cuda.GPU)
    there, _ = BatchAugmentation(recipe, 2, 5, second)(images.to(second), labels.to(second))
    values = there.cpu()
    noise = values[values != 7]
    return {
        "device": str(there.device),
        "same_areas": bool(((values == 7) == (here == 7)).all()),
        "erased": [int(((image != 7).any(0)).sum()) for image in values],
        "numbers": len(noise),
        "mean": noise.mean().item(),
        "std": noise.std().item(),
    }


def looked_for(folder: Path) -> dict[str, Any]:
    """Everything that a plan asks of devices, and what is refused; the driver is on LD_LIBRARY_PATH alone."""
    (folder / "libcuda.so.1").touch()
    os.environ["LD_LIBRARY_PATH"] = f"/nowhere:{folder}"
    answers = [
        device.find_devices("auto"),
        device.find_device("auto"),
        device.find_device("cuda:1"),
        device.find_precision("auto", "auto"),
        device.device_name("cuda:1"),
    ]
    refused = ""
    try:
        device.find_device("cuda:2")
    except device.UserError as error:
        refused = str(error)
    opened = sorted(DEVICES.opened)
    device.open_device("cuda:1")
    later = sorted(DEVICES.opened)
    DEVICES.failing["aten::zeros"] = "CUDA error: an illegal memory access was encountered\nFor debugging"
    try:
        device.open_device("cuda:1")
    except device.UserError as error:
        refused += f"\n{error}"
    return {"answers": answers, "refused": refused, "opened": opened, "later": later}


def kernels_named(folder: Path) -> dict[str, Any]:
    """Return the kernels that a row states for a GPU, before a run and in it."""
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    before = kernels("cuda:1")
    device.prepare_process("cuda:1", 1)
    return {"before": before, "in a run": kernels("cuda:1"), "current": torch.cuda.current_device()}


def _model(name: str = "lora") -> tuple[Adapted, Split, Pixels]:
    """A model on the second GPU, 40 images and their conversion."""
    adapted = assemble(tiny.model_spec(name))
    gpu = torch.device(on_cuda.GPU)
    adapted.prepare("fp32", gpu)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    return adapted, Split(images, np.zeros(40, np.int64)), Pixels("none", 32, gpu)


def evaluated(folder: Path) -> dict[str, Any]:
    """Classify 40 images where a GPU has memory for all of them, and for the pixels of 10."""
    adapted, images, pixels = _model()
    batches, classes = [], []
    for most in (None, 10 * 3 * 32 * 32):
        DEVICES.most = most
        found = [*outputs(adapted.network, images, pixels)]
        batches.append([len(logits) for logits in found])
        classes.append([label for logits in found for label in logits.cpu().argmax(1).tolist()])
    DEVICES.most = 100
    try:
        [*outputs(adapted.network, images, pixels)]
    except torch.OutOfMemoryError:
        return {"batches": batches, "same": classes[0] == classes[1]}
    return {}


def chosen(folder: Path) -> dict[str, Any]:
    """Classify 40 images with less and less free memory: its megabytes, the batches, and their peaks."""
    adapted, images, pixels = _model()
    found = []
    for free in (64, 4, 1, 0):
        torch.cuda.mem_get_info = lambda device, free=free: (free * 10**6, 80 * 2**30)
        batches, peaks, run = [], [], outputs(adapted.network, images, pixels)
        while True:
            with Allocations() as counted, suppress(StopIteration):
                batches.append(len(next(run)))
            if not counted.peak:
                break
            peaks.append(counted.peak)
        found.append({"free": free * 10**6, "batches": batches, "peaks": peaks})
    return {"found": found}


def observed(folder: Path) -> dict[str, Any]:
    """Observe 40 images where a part of the network lacks memory for a batch: how often each was seen."""
    tree = made(folder, {"train": 30, "val": 10, "test": 8})
    spec = on_cuda.spec_of(tree, "corda", "VisionTransformer", "fp32")
    runtime = replace(tree.runtime(), device=on_cuda.GPU)
    adapted = _model("corda")[0]
    calibration, seen = Calibration(adapted, spec, runtime, "trainval"), []
    adapted.network.patch_embed.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    calibration.observe()
    plenty = sum(seen)
    seen.clear()
    DEVICES.most = 40 * 3 * 32 * 32  # for the pixels, and not for the hidden units of an MLP
    try:
        calibration.observe()
    except torch.OutOfMemoryError:
        return {"seen": plenty, "refused": seen}
    return {"seen": plenty, "then": seen}


def predicted(folder: Path) -> dict[str, Any]:
    """Predict 40 images with memory for the pixels of 10, in batches of any size and of 40."""
    spec = tiny.model_spec("lora")
    run = tiny.run_spec(spec, tiny.recipe())
    file = packing.dump(
        tiny.quantized_model(spec).file(packing.describe(run, backbone_sha256(spec.backbone)))
    )
    (folder / "lora.safetensors").write_bytes(file)
    images = [PIL.Image.new("RGB", (32, 32), (number, 0, 0)) for number in range(40)]
    model = SharedBackbone(spec.backbone, device=on_cuda.GPU).use(folder / "lora.safetensors", "stretch")
    classes = [[one.label for one in model.predict(images)]]
    DEVICES.most = 10 * 3 * 32 * 32
    classes.append([one.label for one in model.predict(images)])
    try:
        model.predict(images, batch_size=40)
    except device.UserError as error:
        return {"same": classes[0] == classes[1], "refused": str(error)}
    return {}


def job_after_a_failure(folder: Path) -> dict[str, Any]:
    """Two runs of a Slurm job, whose process meets an error of the GPU in the first."""
    tree = made(folder, on_cuda.SIZES)
    jobs = [job_of(tree.spec(**on_cuda.SETTINGS, seed=seed)) for seed in (0, 1)]
    runtime = replace(tree.runtime(), store=str(folder / "store"), device=on_cuda.GPU)
    Store(folder / "store").create()
    DEVICES.failing["aten::_fused_adamw_"] = "CUDA error: unspecified launch failure"
    outcomes = Chunk(jobs, runtime)()
    return {"causes": [outcome.cause for outcome in outcomes], "done": [o.row is not None for o in outcomes]}


if __name__ in ("__main__", "__mp_main__"):  # the latter: a process that a scene starts
    pretended_cuda.install(allowed={1})

if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
