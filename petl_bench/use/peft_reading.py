"""Folders of PEFT adapters for LoRA on timm models, read as adapter files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

from petl_bench.adapters.delta import SLICES, DeltaLinear, Slices
from petl_bench.errors import UserError
from petl_bench.files import ADAPTER_LIMIT, SETTINGS_LIMIT, read_bytes, read_text
from petl_bench.model import assemble
from petl_bench.packing import AdapterFile, Entry, StoredTensor, interpret
from petl_bench.run.execute import configured
from petl_bench.types import FLOAT_BITS, RunSettings, check_range, declarations
from petl_bench.use.peft_files import CONFIG, METADATA, PLAIN, PREFIX, WEIGHTS, Pair, timm_modules


def read_peft(folder: Path, backbone: str | None, normalization: str | None, task: str | None) -> AdapterFile:
    """Return a folder of PEFT's, with LoRA on a timm model, as an adapter file of `lora` at 32 bits.

    Args:
        folder: the folder, which `PeftModel.save_pretrained` or `petl-bench export --to peft` has written.
        backbone: name in conf/backbone. `petl-bench export` states it, other folders do not.
        normalization: normalization of the pixels, likewise.
        task: name of the task, which need not be known.

    Raises:
        UserError: a file is missing or damaged, something has to be given, or `lora` has no such updates.
    """
    where = str(folder)
    config = _read_config(folder)
    tensors, stated = _read_tensors(folder / WEIGHTS)
    given = {"backbone": backbone, "normalization": normalization, "task": task}
    for name, value in given.items():
        if value is not None and stated.get(name, value) != value:
            raise UserError(f"--{name} {value}: {where} states {stated[name]!r}; leave the option out")
    missing = [f"--{name}" for name in ("backbone", "normalization") if given[name] is None]
    if not stated and missing:
        raise UserError(f"{where}: does not state its backbone and pixels; give {' and '.join(missing)}")
    pairs, head = _sorted(tensors, config, where)
    scales = {pair.scaling for pair in pairs.values()}
    if not stated:
        ranks = {rank for pair in pairs.values() for rank in _ranks(pair)}
        stated = {
            "adapter": "lora",
            "hidden": str(max(ranks)),
            "quantizer": "l1_median",
            "scale": repr(max(scales)),
            "head": "linear",
            "task": task or "",
            "normalization": str(normalization),
            "backbone": str(backbone),
            "a.dropout": repr(float(config.get("lora_dropout", 0.0))),
        }
    metadata = stated | {"bits": str(FLOAT_BITS), "head": "linear"}
    weight = StoredTensor(
        Entry("weight", tuple(head["weight"].shape), FLOAT_BITS), values=head["weight"].numpy()
    )
    model = interpret(AdapterFile(metadata, [], [weight]), configured, where).model
    if model.adapter.name != "lora":
        raise UserError(f"{where}: states the adapter {model.adapter.name}, and only lora can be read")
    adapted = assemble(model, _seed(metadata, where))
    updated = {
        name: module.delta
        for name, module in timm_modules(adapted.network)
        if isinstance(module, DeltaLinear)
    }
    if updated.keys() != pairs.keys():
        name = min(updated.keys() ^ pairs.keys())
        has = "an update of" if name in pairs else "no update of"
        raise UserError(
            f"{where}: has {has} {name}; lora updates queries and values of all blocks "
            f"of {model.backbone.display_name}: {', '.join(sorted(updated)[:3])}, ..."
        )
    with torch.no_grad():
        for name, delta in updated.items():
            _fill(delta, pairs[name], model.scale, f"{where}: {name}")
        linear: Any = adapted.classifier.get()
        _copy(linear.weight, head["weight"], f"{where}: the classifier")
        if linear.bias is not None:
            _copy(linear.bias, head.get("bias", torch.zeros(model.classes)), f"{where}: the classifier")
    adapted.prepare()
    return adapted.file(metadata)


def _seed(metadata: dict[str, str], where: str) -> int:
    known, text = declarations(RunSettings)["seed"], metadata.get("seed", "0")
    try:
        seed = int(text)
        check_range(known, seed, "seed")
    except (ValueError, UserError) as error:
        raise UserError(f"{where}: states the seed {text!r}; it must be {known.right}") from error
    return seed


def _read_config(folder: Path) -> dict[str, Any]:
    where = f"{folder / CONFIG}"
    try:
        config = json.loads(read_text(folder / CONFIG, SETTINGS_LIMIT))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{where}: peft_type is {kind!r}; only LORA can be read")
    for name, value in PLAIN.items():
        if config.get(name, value) not in (value, None):
            raise UserError(f"{where}: {name} is {config[name]!r}; only {value!r} can be read")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list):
        raise UserError(f"{where}: modules_to_save is {saved!r}; it must be a list of names")
    dropout = config.get("lora_dropout", 0.0)
    if type(dropout) not in (int, float) or not 0 <= dropout <= 1:
        raise UserError(f"{where}: lora_dropout is {dropout!r}; it must be a number from 0 to 1")
    return config


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, float32, and the metadata of the adapter file it was made from."""
    data = read_bytes(path, ADAPTER_LIMIT)
    try:
        tensors = {name.removeprefix(PREFIX): value.float() for name, value in load(data).items()}
        with safe_open(path, "pt") as file:
            stated = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(stated, dict) or not all(isinstance(value, str) for value in stated.values()):
        raise UserError(f"{path}: its metadata {METADATA!r} cannot be read")
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{path}: tensor {name} has values that are not finite")
    return tensors, stated


def _sorted(
    tensors: dict[str, Tensor], config: dict[str, Any], where: str
) -> tuple[dict[str, Pair], dict[str, Tensor]]:
    """Return the updates by the name of their linear, and weight and bias of the classifier.

    Raises:
        UserError: a tensor is neither, or half of a pair is missing.
    """
    pairs: dict[str, Pair] = {}
    head: dict[str, Tensor] = {}
    saved = [str(name) for name in config.get("modules_to_save") or []]
    left = dict(tensors)
    for name in [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]:
        down, up = left.pop(f"{name}.lora_A.weight"), left.pop(f"{name}.lora_B.weight", None)
        if up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != len(down) or not down.numel():
            raise UserError(f"{where}: the matrices A and B of {name} are no pair")
        pairs[name] = Pair(down, up, _scaling(config, name, len(down), where))
    for name in saved:
        for kind in ("weight", "bias"):
            if (value := left.pop(f"{name}.{kind}", None)) is not None:
                head[kind] = value
    if left:
        raise UserError(f"{where}: {min(left)} is no matrix of LoRA and no classifier of modules_to_save")
    if not pairs or "weight" not in head:
        raise UserError(f"{where}: has no {'LoRA' if not pairs else 'classifier (modules_to_save)'}")
    return pairs, head


def _scaling(config: dict[str, Any], name: str, rank: int, where: str) -> float:
    try:
        alphas = config.get("alpha_pattern") or {}
        alpha = float(alphas.get(name, config["lora_alpha"]))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{where}: lora_alpha of {name} is no number") from error
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _parts(pair: Pair) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the pairs of the slices of a fused projection, without hidden units that are zero in a slice."""
    found = {}
    for name, up in zip(SLICES, pair.up.chunk(len(SLICES)), strict=True):
        used = up.any(dim=0)
        if used.any():
            found[name] = pair.down[used], up[:, used]
    return found


def _blocks(pair: Pair, delta: Slices) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the pairs of the slices if they stand one after another as `_pair` writes them, else none.

    Hidden units whose weights are zero keep their places.
    """
    names = [name for name in SLICES if name in delta.deltas]
    if len(pair.down) % len(names):
        return {}
    ups = dict(zip(SLICES, pair.up.clone().chunk(len(SLICES)), strict=True))
    found = {}
    for at, (name, down) in enumerate(zip(names, pair.down.chunk(len(names)), strict=True)):
        own = slice(at * len(down), (at + 1) * len(down))
        found[name] = down, ups[name][:, own].clone()
        ups[name][:, own] = 0
    return {} if any(up.any() for up in ups.values()) else found


def _ranks(pair: Pair) -> list[int]:
    is_fused = len(pair.up) % len(SLICES) == 0
    return (
        [len(down) for down, _ in _parts(pair).values()] if is_fused and pair.up.any() else [len(pair.down)]
    )


def _fill(delta: nn.Module, pair: Pair, scale: float, where: str) -> None:
    """Write a pair to an update of the adapter.

    Raises:
        UserError: the adapter has no such update.
    """
    factor = 1.0 if math.isclose(pair.scaling, scale, rel_tol=1e-12) else pair.scaling / scale
    if not isinstance(delta, Slices):
        _write(delta, pair.down, pair.up * factor, where)
        return
    outputs = len(SLICES) * next(len(part.up.weight) for part in cast("Iterable[Any]", delta.deltas.values()))
    if len(pair.up) != outputs:
        raise UserError(f"{where}: B has {len(pair.up)} rows where the model has {outputs} outputs")
    parts = _blocks(pair, delta) or _parts(pair)
    if other := sorted(parts.keys() - delta.deltas.keys()):
        names = {"q": "queries", "k": "keys", "v": "values"}
        raise UserError(f"{where}: updates the {names[other[0]]}, which lora leaves as they are")
    deltas: Any = delta.deltas
    for name, part in deltas.items():
        if name in parts:
            _write(part, parts[name][0], parts[name][1] * factor, where)
        else:
            part.up.weight.zero_()


def _write(delta: Any, down: Tensor, up: Tensor, where: str) -> None:
    """Write the matrices of a pair; hidden units that it lacks are zero."""
    missing = len(delta.down.weight) - len(down)
    if missing > 0:
        down = nn.functional.pad(down, (0, 0, 0, missing))
        up = nn.functional.pad(up, (0, missing))
    _copy(delta.down.weight, down, where)
    _copy(delta.up.weight, up, where)


def _copy(target: Tensor, value: Tensor, where: str) -> None:
    if target.shape != value.shape:
        raise UserError(
            f"{where}: has a matrix {tuple(value.shape)} where the model has {tuple(target.shape)}"
        )
    target.copy_(value)
