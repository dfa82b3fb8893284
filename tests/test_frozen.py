"""Behaviour frozen before the packages were rearranged: identities, rows and adapter bytes of many runs.

`tests/frozen.json` was printed by `python -m tests.test_frozen` before that. A change means that stores
and adapter files are orphaned: raise PROTOCOL_VERSION or the file format, say so in CHANGELOG.md,
and only then print it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from petl_bench import initialization, packing
from petl_bench.adapters import ADAPTERS
from petl_bench.config import options, plan
from petl_bench.model import Adapted, assemble
from petl_bench.run import metadata
from petl_bench.types import run_id, spec_to_dict
from tests import tiny

FILE = Path(__file__).with_name("frozen.json")
WEIGHTS = "0" * 64
ONE = ["sweep=none", "task=digits", "scale=1"]
"""One run of the bundled suite."""

SPECS = {
    **{f"adapter {name}": [*ONE, f"adapter={name}", "hidden=8"] for name in options("adapter")},
    **{f"{name} of 32 bits": [*ONE, f"adapter={name}", "bits=32"] for name in options("adapter")},
    **{f"backbone {name}": [*ONE, f"backbone={name}"] for name in options("backbone") if name != "timm"},
    "backbone timm": [
        *ONE,
        "backbone=timm",
        "backbone.name=vit_small_patch16_224",
        "backbone.weights=random",
    ],
    **{f"quantizer {name}": [*ONE, f"quantizer={name}", "bits=2"] for name in options("quantizer")},
    **{f"head {name}": [*ONE, f"head={name}"] for name in options("head")},
    # `own` is vtab, but for the pixels of backbones with a normalization (tests/test_recipes.py).
    **{f"recipe {name}": [*ONE, f"train={name}"] for name in options("train") if name != "own"},
    "search": ["sweep=none", "protocol=sealed", "task=shapes_count"],
    "search of scales and rates": ["sweep=none", "protocol.scales=[0.1,1]", "protocol.lrs=[1e-3,1e-2]"],
    "search by halving": ["sweep=none", "protocol.rungs=[0.25,0.5]", "train.epochs=8"],
    "tuned scale": ["sweep=none", "protocol=fixed", "task=sprites_loc"],
    "tuned rate": ["sweep=none", "protocol=fixed", "task=sprites_loc", "adapter=linear"],
    "given rate": ["sweep=none", "protocol=fixed", "task=sprites_loc", "adapter=linear", "train.lr=0.01"],
    "peek": [*ONE, "protocol=peek", "protocol.every=3"],
    "bfloat16": [*ONE, "precision=bf16"],
    "int8": [*ONE, "precision=int8", "backbone=vit_b16_in21k"],
    "statistics in bits": [*ONE, "statistics=shortest"],
    "rate": [*ONE, "rate_weight=0.03", "train.epochs=30"],
    "raw": [*ONE, "packing=raw", "statistics=short"],
    "without codes": [*ONE, "packing=raw", "statistics=short", "bits=32"],
    "average": [*ONE, "train.average.checkpoints=3", "train.average.every=2", "train.average.by=step"],
    "average that is off": [*ONE, "train.average.every=2"],
    "activations": [*ONE, "train.activations=2bit"],
    "augmentation": [
        *ONE,
        "train.augment.mixup=0.8",
        "train.augment.crop=true",
        "train.augment.smoothing=0.1",
    ],
    "adapter settings": [*ONE, "adapter=lora", "adapter.dropout=0.2", "adapter.share=0"],
    "normalization": [*ONE, "train.normalization=imagenet"],
    "normalization of a backbone": [*ONE, "backbone=vit_b16_clip", "train.normalization=backbone"],
    "few-shot": [*ONE[::2], "task=fgvc_cars", "shots=4", "split_seed=2", "data.root=somewhere"],
    "VTAB": ["sweep=none", "task=vtab_dtd", "protocol=sealed", "backbone=vit_b16_in21k", "adapter=lora"],
    "tree": [*ONE[::2], "task=tree", "split_seed=7", "data.images=40"],
    "folder": [*ONE[::2], "task=folder"],
    "seed": [*ONE, "seed=41"],
    **{f"sweep {name}": [f"sweep={name}"] for name in options("sweep") if name not in ("none", "default")},
    "sweep default": ["sweep=default", "preset=released", "train.batch_size=32"],
    "preset compact": ["sweep=default", "preset=compact", "train.batch_size=32"],
}
"""Name -> overrides."""

FILES = [(name, bits) for name in ADAPTERS for bits in (1, 4, 32)] + [("adaptformer", 8), ("lora", 3)]


def digest(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:16]


YOUNGER = {
    "start": 0.0,
    "matrix_lr": 1.0,
    "float_bits": 32,
    "container": "safetensors",
    "statistics_of": "matrix",
    "compress": "none",
    "kept": 0.0,
    "strength": 0.0,
}
"""Settings that are younger than the frozen values, with the values that the frozen runs stand for."""


def without_younger(values: dict[str, object]) -> dict[str, object]:
    """Leave out younger settings that stand at these values; others stay, and make the digest another one."""
    return {name: value for name, value in values.items() if YOUNGER.get(name, NOT_YOUNGER) != value}


NOT_YOUNGER = object()


def identities(overrides: list[str]) -> Iterator[tuple[str, str]]:
    """The run_id of each run of a plan, and a digest of its stored spec and of the columns that repeat it."""
    for spec in plan(overrides).runs:
        stored = spec_to_dict(spec)
        columns = {name: value for name, value in metadata.settings(spec).items() if name != "label"}
        parts = [without_younger(stored), without_younger(columns), metadata.recipe_hash(spec)]
        yield run_id(spec, WEIGHTS), digest(parts)


def frozen_plan(name: str) -> list[str]:
    """Both of a single run, of longer plans a digest of the list, in order."""
    found = [" ".join(pair) for pair in identities(SPECS[name])]
    return found if len(found) == 1 else [f"{len(found)} runs", digest(found)]


def exact_numbers(name: str, count: int) -> NDArray[np.float32]:
    """Numbers with an exact mean of 0 and exact sums of magnitudes and squares, in any order of summation."""
    half = (initialization.words(5, name, (count // 2,)) % 63).astype(np.float32) / 64
    return np.concatenate([half, -half[::-1], np.zeros(count % 2, np.float32)])


@torch.no_grad()
def fill(adapted: Adapted) -> None:
    """Set everything that a training would have changed to values that are equal on all processors."""
    for part in (adapted.adapter, adapted.head):
        for name, latent in part.latents.items():
            latent.copy_(torch.from_numpy(exact_numbers(name, latent.numel())).view_as(latent))
        for name, group in part.floats.items():
            for number, parameter in enumerate(group):
                values = exact_numbers(f"{name}.{number}", parameter.numel())
                parameter.copy_(torch.from_numpy(values).view_as(parameter))
        for name, codes in part.attached.codes.items():
            words = initialization.words(9, name, tuple(codes.shape)) % 256
            codes.copy_(torch.from_numpy(words.astype(np.uint8)))


def frozen_file(name: str, bits: int, head: str = "linear", code: bool = True) -> str:
    """A digest of the bytes of a tiny model's adapter file, its metadata included."""
    spec = plan([*ONE, f"adapter={name}", f"bits={bits}", "hidden=4", f"head={head}"]).runs[0]
    model = tiny.model_spec(name, head, spec.bits, 4)
    adapted = assemble(model)
    adapted.prepare()
    fill(adapted)
    return digest(packing.dump(adapted.file(packing.describe(spec, WEIGHTS), code)))


def current() -> dict[str, dict[str, object]]:
    files: dict[str, object] = {f"{name} {bits}": frozen_file(name, bits) for name, bits in FILES}
    files["lora 1 binary head"] = frozen_file("lora", 1, "binary")
    files["lora 1 raw"] = frozen_file("lora", 1, code=False)
    return {"plans": {name: frozen_plan(name) for name in SPECS}, "files": files}


FROZEN = json.loads(FILE.read_text()) if FILE.is_file() else {"plans": {}, "files": {}}


@pytest.mark.parametrize("name", FROZEN["plans"])
@pytest.mark.sampled(50)
def test_identities_and_columns_stay(name: str) -> None:
    assert frozen_plan(name) == FROZEN["plans"][name]


@pytest.mark.parametrize("name", FROZEN["files"])
def test_the_bytes_of_adapter_files_stay(name: str) -> None:
    adapter, bits, *rest = name.split()
    expected = FROZEN["files"][name]
    assert (
        frozen_file(adapter, int(bits), "binary" if "binary" in rest else "linear", "raw" not in rest)
        == expected
    )


def test_every_kind_is_frozen() -> None:
    """New methods are added here, so that their first files stay readable too."""
    assert set(FROZEN["plans"]) == set(SPECS)
    assert {f"{name} {bits}" for name, bits in FILES} <= set(FROZEN["files"])


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1) + "\n")
