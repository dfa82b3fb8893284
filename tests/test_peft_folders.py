"""Folders of PEFT: `export --to peft` and `convert`; expected logits are those of PEFT itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from petl_bench.backbones.creation import create
from petl_bench.errors import UserError
from petl_bench.packing import load as load_adapter
from petl_bench.use import exported, load, read, read_peft
from tests import tiny
from tests.conftest import quickly
from tests.test_export import put
from tests.test_use import images, written


@pytest.mark.parametrize("settings", [{}, {"share": 2}, {"allocation": "rising"}, {"dropout": 0.25}])
@pytest.mark.parametrize("bits", [1, 32])
def test_lora_survives_the_way_to_peft_and_back(bits: int, settings: dict[str, Any], tmp_path: Path) -> None:
    """The weights come back equal, and so do the logits to 1e-6."""
    path = written(tmp_path, tiny.model_spec("lora", bits=bits, scale=0.3, **settings))
    folder = put(exported(read(path, resize="crop"), "peft"), tmp_path / "folder")
    back = tmp_path / "back.safetensors"
    done = quickly("convert", folder, back, "--to", "petl-bench")
    assert done.returncode == 0, done.stderr
    old, new = load_adapter(path.read_bytes(), ""), load_adapter(back.read_bytes(), "")
    assert new.metadata == old.metadata | {"bits": "32"}
    if bits == 32:
        for before, after in zip((*old.adapter, *old.head), (*new.adapter, *new.head), strict=True):
            assert before.entry == after.entry
            assert np.array_equal(before.values, after.values)
    expected, found = (load(file, resize="crop")(images()) for file in (path, back))
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)


def pretrained(folder: Path, keys: float = 0.0, **settings: Any) -> tuple[Any, Any]:
    """A folder that peft itself writes for the bundled backbone, and its model."""
    from petl_bench.run.execute import configured

    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain: Any = create(replace(configured("pocket"), weights="random"), 0.0)
    from petl_bench.backbones import families

    base, _ = families.build(configured("pocket"))
    plain.load_state_dict(base.state_dict(), strict=False)
    plain.reset_classifier(tiny.CLASSES)
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["qkv"], "modules_to_save": ["head"]} | settings
    )
    model = peft.get_peft_model(plain, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and len(parameter) % 3 == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
                parameter[len(parameter) // 3 : 2 * len(parameter) // 3] = keys
            elif "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval(), plain


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"blocks.1.attn.qkv": 3}}])
def test_a_folder_that_peft_has_written_computes_the_logits_of_peft(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = pretrained(tmp_path / "folder", **settings)
    file = tmp_path / "file.safetensors"
    arguments = ["convert", tmp_path / "folder", file, "--to", "petl-bench", "--backbone", "pocket"]
    done = quickly(*arguments, "--normalization", "half")
    assert done.returncode == 0, done.stderr
    with pytest.warns(UserWarning, match="was converted"):
        ours = load(file, resize="stretch", precision="fp32")
    batch = torch.randn(2, 3, ours.info.image_size, ours.info.image_size, generator=torch.Generator())
    with torch.inference_mode():
        expected = model(batch)
    assert torch.allclose(ours(batch), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retensored(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


A, B = (f"base_model.model.blocks.0.attn.qkv.lora_{part}.weight" for part in "AB")
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another method": (lambda f: edited(f, peft_type="LOKR"), "peft_type is 'LOKR'; only LORA can be read"),
    "dora": (lambda f: edited(f, use_dora=True), "use_dora is True; only False can be read"),
    "no alpha": (lambda f: edited(f, lora_alpha="x"), ".attn.qkv is no number"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "is no JSON"),
    "no config": (
        lambda f: (f / "adapter_config.json").unlink(),
        "adapter_config.json: cannot be read: No such file",
    ),
    "no weights": (
        lambda f: (f / "adapter_model.safetensors").unlink(),
        "adapter_model.safetensors: cannot be read",
    ),
    "damaged": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"), "cannot be read"),
    "deep": (
        lambda f: (f / "adapter_config.json").write_text("[" * 100000 + "]" * 100000),
        "is no JSON",
    ),
    "large alpha": (lambda f: edited(f, lora_alpha=10**400), ".attn.qkv is no number"),
    "alpha that is not finite": (
        lambda f: edited(f, lora_alpha=float("nan")),
        "it must be a positive number",
    ),
    "a number of modules": (lambda f: edited(f, modules_to_save=3), "it must be a list of names"),
    "dropout in words": (lambda f: edited(f, lora_dropout="x"), "it must be a number from 0 to 1"),
    "no rank": (
        lambda f: retensored(f, lambda t: t.update({A: t[A][:0] + 0, B: t[B][:, :0] + 0})),
        "are no pair",
    ),
    "one row": (lambda f: retensored(f, lambda t: t.update({B: t[B][:1] + 0})), "B has 1 rows where"),
    "half a pair": (lambda f: retensored(f, lambda t: t.pop(B)), "A and B of blocks.0.attn.qkv are no pair"),
    "another rank": (lambda f: retensored(f, lambda t: t.update({A: t[A][:3]})), "are no pair"),
    "not finite": (lambda f: retensored(f, lambda t: t[A].fill_(torch.nan)), "not finite"),
    "more": (lambda f: retensored(f, lambda t: t.update(x=t[A] + 1)), "x is no matrix of LoRA"),
    "no head": (lambda f: edited(f, modules_to_save=[]), "is no matrix of LoRA and no classifier"),
    "a block less": (
        lambda f: retensored(f, lambda t: [t.pop(name) for name in (A, B)]),
        "has no update of blocks.0.attn.qkv",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_that_lora_cannot_hold_are_refused_by_name(fault: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    pretrained(folder)
    change, expected = FAULTS[fault]
    change(folder)
    with pytest.raises(UserError) as refused:
        read_peft(folder, "pocket", "half", None)
    assert str(folder) in str(refused.value)
    assert expected in str(refused.value)


@pytest.mark.parametrize("seed", ["x", "1e999", "-1", "", str(1 << 63)])
def test_a_stated_seed_that_is_none_is_refused(seed: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiny.model_spec("lora", bits=32))
    folder = put(exported(read(path, resize="crop"), "peft"), tmp_path / "folder")
    name = folder / "adapter_model.safetensors"
    with safe_open(name, "pt") as file:
        stated = json.loads(file.metadata()["petl-bench"])
    save_file(load_file(name), name, {"petl-bench": json.dumps(stated | {"seed": seed})})
    with pytest.raises(UserError, match=r"states the seed .*; it must be a whole number"):
        read_peft(folder, None, None, None)


def test_updates_of_keys_and_of_other_linears_are_refused(tmp_path: Path) -> None:
    pretrained(tmp_path / "keys", keys=1.0)
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv: updates the keys, which lora leaves"):
        read_peft(tmp_path / "keys", "pocket", "half", None)
    pretrained(tmp_path / "more", target_modules=["qkv", "fc1"])
    with pytest.raises(UserError, match=r"has an update of blocks\.0\.mlp\.fc1"):
        read_peft(tmp_path / "more", "pocket", "half", None)
