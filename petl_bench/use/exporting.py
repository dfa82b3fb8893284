"""Trained adapters as files of other programs: weights of timm models, and graphs for torch and ONNX."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from petl_bench import __version__
from petl_bench.backbones.creation import current_name
from petl_bench.errors import UserError, out_of_memory
from petl_bench.model import restore
from petl_bench.types import NORMALIZATIONS, BackboneSpec
from petl_bench.use.agreement import random_images, require_equal_logits
from petl_bench.use.files import Trained, on_its_backbone
from petl_bench.use.merging import merged
from petl_bench.use.peft_files import as_peft

if TYPE_CHECKING:
    from collections.abc import Iterator

_CROP = 224 / 256
"""Part of the short side that `resize=crop` keeps."""

Files = dict[str, bytes]
"""Content by the name of each file in a folder; the name of a single file that is no folder is empty."""


def exported(trained: Trained, form: str) -> Files:
    """Return a trained adapter with its backbone as files of another program.

    Args:
        trained: the adapter file.
        form: one of FORMS.

    Raises:
        UserError: the file was trained on other weights, the method has no such form, or a package that
            makes it is not installed.
    """
    trained = on_its_backbone(trained)
    try:
        return FORMS[form](trained)
    except UserError as error:
        if form in GRAPHS:
            raise
        raise UserError(f"{error}; --to torch writes the graph of any method") from error


def facts(trained: Trained) -> dict[str, Any]:
    """Return what the use of an exported model needs, for JSON: pixels in, names of classes out."""
    model = trained.facts.model
    mean, std = NORMALIZATIONS[trained.facts.normalization]
    return {
        "architecture": current_name(trained.backbone.name),
        "backbone": trained.backbone.display_name,
        "adapter": model.adapter.name,
        "hidden": model.hidden,
        "bits": model.bits,
        "task": trained.facts.task,
        "classes": model.classes,
        "class_names": list(trained.class_names),
        "image_size": trained.backbone.image_size,
        "resize": trained.resize,
        "mean": list(mean),
        "std": list(std),
        "petl_bench": __version__,
    }


def _safetensors(trained: Trained) -> Files:
    return {"": _saved(_state(merged(trained)), {key: _text(value) for key, value in facts(trained).items()})}


def _timm(trained: Trained) -> Files:
    """Return the files of a folder that `timm.create_model("local-dir:FOLDER")` loads."""
    plain: Any = merged(trained)
    stated, backbone = facts(trained), trained.backbone
    config = {
        "architecture": stated["architecture"],
        "num_classes": stated["classes"],
        "num_features": plain.num_features,
        **({"label_names": stated["class_names"]} if stated["class_names"] else {}),
        "model_args": model_arguments(backbone),
        "pretrained_cfg": {
            **{key: plain.pretrained_cfg[key] for key in ("first_conv", "classifier", "fixed_input_size")},
            "input_size": [3, backbone.image_size, backbone.image_size],
            "interpolation": "bicubic",
            "crop_pct": _CROP if trained.resize == "crop" else 1.0,
            "crop_mode": "center" if trained.resize == "crop" else "squash",
            "mean": stated["mean"],
            "std": stated["std"],
            "num_classes": stated["classes"],
        },
    }
    return {
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "model.safetensors": _saved(_state(plain), {"format": "pt"}),
    }


def model_arguments(backbone: BackboneSpec) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` for a backbone, besides its architecture."""
    known = timm.get_pretrained_cfg(current_name(backbone.name))
    sized = {"img_size": backbone.image_size} if known is not None and known.fixed_input_size else {}
    return {**sized, **backbone.options}


class Classifier(nn.Module):
    """A network whose input is named `images`, as the inputs of exported graphs are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) for normalized images (batch, 3, S, S)."""
        logits: Tensor = self.network(images)
        return logits


def _torch(trained: Trained) -> Files:
    """Return a program for `torch.export.load`, with the facts in its extra file `petl-bench.json`."""
    module, images = _classifier(trained)
    with _quiet(trained, "torch.export"):
        program = torch.export.export(module, (images,), dynamic_shapes=_SHAPES, strict=False)
        target = io.BytesIO()
        torch.export.save(program, target, extra_files={"petl-bench.json": json.dumps(facts(trained))})
    again = torch.export.load(io.BytesIO(target.getvalue())).module()
    _require_equal(module, again, trained, "torch.export")
    return {"": target.getvalue()}


def _onnx(trained: Trained) -> Files:
    """Return an ONNX model, with the facts in its metadata; ONNX Runtime computes the same logits."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UserError(
            f"--to onnx needs the package {error.name}: pip install 'petl-bench[onnx]'"
        ) from error
    module, images = _classifier(trained)
    with _quiet(trained, "torch.onnx"):
        program: Any = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=_SHAPES,
        )
        proto = program.model_proto
        for key, value in facts(trained).items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, _text(value)
        data: bytes = proto.SerializeToString()  # at most 2 GB
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    _require_equal(
        module,
        lambda batch: torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]),
        trained,
        "torch.onnx",
    )
    return {"": data}


FORMS: Mapping[str, Callable[[Trained], Files]] = {
    "safetensors": _safetensors,
    "timm": _timm,
    "torch": _torch,
    "onnx": _onnx,
    "peft": as_peft,
}
"""Forms of exported models: one file, or a folder (`timm` and `peft`)."""

GRAPHS = ("torch", "onnx")
"""Forms that hold the graph of a model."""

_SHAPES = {"images": {0: torch.export.Dim("batch", min=1, max=1 << 16)}}


def _classifier(trained: Trained) -> tuple[Classifier, Tensor]:
    """Return the model in fp32 on the CPU, and two images (2, 3, S, S) to trace it with."""
    network = restore(trained.facts.model, trained.file, trained.where)
    return Classifier(network).eval(), random_images(2, trained.backbone.image_size)


def _require_equal(
    module: nn.Module, exported: Callable[[Tensor], Tensor], trained: Trained, tool: str
) -> None:
    require_equal_logits(module, exported, trained.backbone.image_size, _refusal(trained, tool))


def _refusal(trained: Trained, tool: str) -> str:
    adapter, backbone = trained.facts.model.adapter.name, trained.backbone.display_name
    return f"{trained.where}: {tool} cannot export {adapter} on {backbone}"


@contextmanager
def _quiet(trained: Trained, tool: str) -> Iterator[None]:
    """Turn any error of an exporter into one message, and keep its warnings and logs to itself.

    Raises:
        UserError: the exporter cannot handle the model.
    """
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # exporters raise anything on operations that they do not know
        if out_of_memory(error):
            raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UserError(f"{_refusal(trained, tool)}: {reason}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}


def _saved(state: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    return save(dict(state), metadata)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
