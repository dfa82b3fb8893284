"""Bytes of adapters on disk, in files of petl-bench and of Hugging Face peft.

`python -m petl_bench.dev.peft_sizes` saves adapters of peft on a ViT-B/16 with random weights, by
`save_pretrained` with its defaults, and writes the sizes of `adapter_model.safetensors` to
`.readme/peft_sizes.json`. The documentation shows them beside the bytes of the same methods here, which
follow from their declarations. peft, transformers and some 2 GB of memory are needed.
"""

from __future__ import annotations

import copy
import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from petl_bench.adapters import Shape, declare
from petl_bench.atomic import write_atomic
from petl_bench.backbones import families
from petl_bench.model import Component
from petl_bench.model.costs import VIT_B16
from petl_bench.types import FLOAT_BITS, completed

RESULT = Path(".readme/peft_sizes.json")
QUERY_VALUE = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Counterpart:
    """A method here and in peft, with settings for equal numbers of trained parameters.

    Attributes:
        title: its name in papers.
        adapter: its name here.
        config: name of its configuration in peft.
        arguments: arguments of this configuration.
        hidden: hidden size here.
        settings: settings here that are not the defaults.
        unstored: trained parameters that no file here holds.
    """

    title: str
    adapter: str
    config: str
    arguments: Mapping[str, Any]
    hidden: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    unstored: int = 0


COUNTERPARTS = (
    Counterpart("LoRA, rank 16", "lora", "LoraConfig", {"r": 16}, 16),
    Counterpart("DoRA, rank 16", "dora", "LoraConfig", {"r": 16, "use_dora": True}, 16),
    Counterpart("HiRA, rank 16", "hira", "HiraConfig", {"r": 16}, 16),
    Counterpart(
        "(IA)3",
        "ia3",
        "IA3Config",
        {"target_modules": ["k_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]},
    ),
    Counterpart("VeRA, rank 256", "vera", "VeraConfig", {"r": 256}, 256),
    Counterpart(
        "VeRA, rank 256, save_projection=False",
        "vera",
        "VeraConfig",
        {"r": 256, "save_projection": False},
        256,
    ),
    Counterpart("FourierFT, 1,000 coefficients", "fourierft", "FourierFTConfig", {"n_frequency": 1000}),
    Counterpart(
        "WaveFT, 1,000 coefficients",
        "fourierft",
        "WaveFTConfig",
        {"n_frequency": 1000},
        settings={"transform": "haar"},
    ),
    Counterpart(
        "VB-LoRA, rank 16, 60 vectors of 256",
        "vb_lora",
        "VBLoRAConfig",
        {"r": 16, "num_vectors": 60, "vector_length": 256},
        16,
        unstored=2304 * 60,
    ),
    Counterpart(
        "VB-LoRA, rank 16, 60 vectors of 256, save_only_topk_weights=True",
        "vb_lora",
        "VBLoRAConfig",
        {"r": 16, "num_vectors": 60, "vector_length": 256, "save_only_topk_weights": True},
        16,
        unstored=2304 * 60,
    ),
    Counterpart("C3A, blocks of 768", "c3a", "C3AConfig", {"block_size": 768}),
    Counterpart("RoAd", "road", "RoadConfig", {"variant": "road_1"}),
    Counterpart(
        "TinyLoRA, rank 2, 64 values per linear",
        "lora_xs",
        "TinyLoraConfig",
        {"r": 2, "u": 64},
        2,
        {"sites": "qv", "numbers": 64},
    ),
    Counterpart(
        "TinyLoRA, rank 2, 64 values per linear, save_projection=False",
        "lora_xs",
        "TinyLoraConfig",
        {"r": 2, "u": 64, "save_projection": False},
        2,
        {"sites": "qv", "numbers": 64},
    ),
    Counterpart(
        "Uni-LoRA, rank 16, 256 values", "uni_lora", "UniLoraConfig", {"r": 16, "theta_d_length": 256}, 16
    ),
)


def measured() -> Iterator[dict[str, Any]]:
    """Yield title, number of trained parameters and bytes of the file of each method of peft."""
    peft, transformers = importlib.import_module("peft"), importlib.import_module("transformers")
    torch.manual_seed(0)
    base = transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
    for known in COUNTERPARTS:
        config = getattr(peft, known.config)(**{"target_modules": QUERY_VALUE} | dict(known.arguments))
        model = peft.get_peft_model(copy.deepcopy(base), config)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            size = (Path(folder) / "adapter_model.safetensors").stat().st_size
        yield {
            "title": known.title,
            "numbers": model.get_nb_trainable_parameters()[0],
            "bytes": size,
            "version": peft.__version__,
        }


def sizes_beside_peft(root: Path) -> str:
    """Return the Markdown table of the kept sizes and those here, by ascending bytes of peft per number.

    Args:
        root: folder that holds the kept sizes.
    """
    kept = {held["title"]: held for held in json.loads((root / RESULT).read_text(encoding="utf-8"))}
    with torch.device("meta"):
        built = families.build(VIT_B16)
    columns = ("Method", "Adapter here", "Numbers claimed", "Here, 32 bits", "Here, 1 bit", "peft")
    lines = [" | ".join(("", *columns, "peft / numbers")), " | ".join(("", ":--", ":--", *["--:"] * 5))]
    for known in sorted(COUNTERPARTS, key=lambda c: kept[c.title]["bytes"] / kept[c.title]["numbers"]):
        _, sites = copy.deepcopy(built)
        settings = completed(known.adapter, known.settings).settings
        attached = declare(known.adapter, settings, sites, Shape(known.hidden, 1.0, quantized=True))
        trained = chain((matrix.weight for matrix in attached.matrices.values()), *attached.floats.values())
        count, held = known.unstored + sum(p.numel() for p in trained), kept[known.title]
        assert count == held["numbers"], (known.title, count, held["numbers"])
        sizes = [sum(e.nbytes for e in Component(attached, bits, "").entries) for bits in (FLOAT_BITS, 1)]
        own = " ".join([f"`{known.adapter}`", *(f"`{key}={value}`" for key, value in known.settings.items())])
        cells = [known.title, own, *(f"{n:,}" for n in (count, *sizes, held["bytes"]))]
        lines.append(" | ".join(["", *cells, f"{held['bytes'] / count:.1f}"]))
    return "\n".join(f"{line} |".strip() for line in lines) + "\n"


if __name__ == "__main__":
    write_atomic(RESULT, (json.dumps(list(measured()), indent=1) + "\n").encode())
