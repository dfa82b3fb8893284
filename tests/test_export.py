"""`petl-bench export`: expected logits are those of the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from petl_bench.adapters import ADAPTERS
from petl_bench.backbones.creation import create
from petl_bench.cli.export import Form
from petl_bench.data import manifests
from petl_bench.errors import UserError
from petl_bench.store import ADAPTER
from petl_bench.use import FORMS, exported, load, read
from tests import tiny
from tests.conftest import pick, quickly
from tests.test_use import BACKBONES, images, written

TOLERANCE = 1e-4
"""Bound of the issue for exported logits, relative to the largest."""
CANNOT = {
    "safetensors": "cannot be merged into the weights of",
    "timm": "cannot be merged into the weights of",
    "torch": "torch.export cannot export",
    "onnx": "torch.onnx cannot export",
    "peft": "PEFT has no form of",
}
"""Words of the refusal of each form."""
WITHOUT_GRAPH = {("onnx", "earth")}
"""ONNX has no Fourier transform of two dimensions."""
LOW_RANK = {"lora", "dylora", "pissa", "corda", "fact_tt", "fact_tk"}
"""Methods with a form in PEFT."""


def put(files: dict[str, bytes], target: Path) -> Path:
    """Write exported files."""
    if "" in files:
        target.write_bytes(files[""])
        return target
    target.mkdir()
    for name, data in files.items():
        (target / name).write_bytes(data)
    return target


def plain_model(path: Path) -> Any:
    """timm's model of an adapter file's backbone, with its weights and a new classifier."""
    model: Any = create(read(path, resize="crop").backbone, drop_path=0.0)
    model.reset_classifier(tiny.CLASSES)
    return model.eval()


def of_state(target: Path, path: Path) -> Callable[[Tensor], Tensor]:
    model = plain_model(path)
    model.load_state_dict(load_file(target))
    return model


def of_folder(target: Path, path: Path) -> Callable[[Tensor], Tensor]:
    return timm.create_model(f"local-dir:{target}", pretrained=True).eval()


def of_program(target: Path, path: Path) -> Callable[[Tensor], Tensor]:
    extra = {"petl-bench.json": ""}
    program = torch.export.load(target, extra_files=extra)
    facts = json.loads(extra["petl-bench.json"])
    assert (facts["classes"], facts["resize"], facts["task"]) == (tiny.CLASSES, "crop", "made-up")
    return program.module()


def of_onnx(target: Path, path: Path) -> Callable[[Tensor], Tensor]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(target, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


def of_peft(target: Path, path: Path) -> Callable[[Tensor], Tensor]:
    peft = pytest.importorskip("peft")
    return peft.PeftModel.from_pretrained(plain_model(path), target).eval()


READERS = {
    "safetensors": of_state,
    "timm": of_folder,
    "torch": of_program,
    "onnx": of_onnx,
    "peft": of_peft,
}
"""Programs for which each form is made."""


def test_the_command_knows_every_form() -> None:
    assert [*FORMS] == [form.value for form in Form] == [*READERS] == [*CANNOT]


def agrees(form: str, path: Path, folder: Path, reader: str = "") -> bool:
    """Export a file and compare the other program's logits with the model's; False if it was refused."""
    try:
        files = exported(read(path, resize="crop"), form)
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith(f"{path}: ")
        assert CANNOT[form] in refusal
        return False
    target = put(files, folder / f"exported.{form}")
    found = READERS[form](target, path)
    model = load(path, resize="crop", precision="fp32")
    for count in (1, 5):
        expected = model(images(count))
        with torch.inference_mode():
            logits = found(images(count))
        assert logits.shape == expected.shape
        assert (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return True


@pytest.mark.parametrize("name", [*ADAPTERS])
@pytest.mark.parametrize("form", ["safetensors", "timm"])
@pytest.mark.sampled(each=1)
def test_merged_weights_of_every_method_are_those_of_timms_model_or_refused(
    form: str, name: str, tmp_path: Path
) -> None:
    path = written(tmp_path, tiny.model_spec(name, bits=32 if name == "linear" else 1))
    possible = agrees(form, path, tmp_path)
    try:
        load(path, resize="crop").merge()
    except UserError:
        assert not possible
    else:
        assert possible


@pytest.mark.parametrize("name", [*ADAPTERS])
def test_folders_of_every_method_are_those_of_peft_or_refused(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiny.model_spec(name, bits=32 if name == "linear" else 1))
    assert agrees("peft", path, tmp_path) == (name in LOW_RANK)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        # qkv is 144 x 48; the smallest divisors at or above the square roots are 12 and 8.
        ("krona", "Kronecker products of factors 12 x 8 and 12 x 6"),
        ("soka", r"LoKr of PEFT .* by one number \(decompose_factor\)"),
        ("sketch", "SketchedDelta is no low-rank update"),
        ("ssf", "is no low-rank update of a linear"),
    ],
)
def test_peft_refuses_a_method_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiny.model_spec(name, bits=1))
    with pytest.raises(UserError, match=reason):
        exported(read(path, resize="crop"), "peft")


@pytest.mark.parametrize("name", [*ADAPTERS])
@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.sampled(4)
def test_graphs_of_every_method_compute_the_same_logits(form: str, name: str, tmp_path: Path) -> None:
    path = written(tmp_path, tiny.model_spec(name, bits=32 if name == "linear" else 1))
    assert agrees(form, path, tmp_path) == ((form, name) not in WITHOUT_GRAPH)


OTHER_FAMILIES = [name for name in BACKBONES if name != "VisionTransformer"]


@pytest.mark.parametrize("family", OTHER_FAMILIES)
@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.sampled(3)
def test_graphs_of_every_family_are_exported_or_refused(form: str, family: str, tmp_path: Path) -> None:
    exported_or_refused(form, family, tmp_path)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
@pytest.mark.parametrize("form", ["safetensors", "timm", "peft"])
@pytest.mark.sampled(each=1)
def test_weights_of_every_family_are_exported_or_refused(form: str, family: str, tmp_path: Path) -> None:
    exported_or_refused(form, family, tmp_path)


def exported_or_refused(form: str, family: str, tmp_path: Path) -> None:
    small = BACKBONES[family]
    if "depth" in small.options:  # one block has all kinds of operations
        small = replace(small, options={**small.options, "depth": 1})
    with tiny.skipped_where_refused():
        path = written(tmp_path, tiny.model_spec("lora", bits=1, backbone=small))
    agrees(form, path, tmp_path)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_timm_prepares_images_as_the_model_does(resize: str, tmp_path: Path) -> None:
    """timm's own transform of the folder's configuration, from images of several shapes."""
    path = written(tmp_path, tiny.model_spec("lora"))
    folder = put(exported(read(path, resize=resize), "timm"), tmp_path / "folder")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    ours = load(path, resize=resize).transform
    noise = np.random.default_rng(0)
    for size in ((40, 60), (64, 64), (31, 90)):
        image = Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8))
        # Sides are rounded to whole pixels by other rules, so that crops may be shifted by a part of one.
        assert (transform(image) - ours(image)).abs().mean() < 0.05


def test_exported_files_state_what_their_use_needs(finished_store: Path, tmp_path: Path) -> None:
    run = finished_store / pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]
    for form in ("safetensors", "onnx", "timm"):
        done = quickly("export", run, tmp_path / form, "--to", form, "--threads", 1)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(f"wrote {tmp_path / form}")
    names = list(load(run).class_names)
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert config["label_names"] == names
    onnx = pytest.importorskip("onnx")
    held = {entry.key: entry.value for entry in onnx.load(tmp_path / "onnx").metadata_props}
    assert json.loads(held["class_names"]) == names
    assert (held["classes"], held["task"]) == ("10", "digits")
    assert json.loads(held["mean"]) == config["pretrained_cfg"]["mean"]
    assert held["resize"] == manifests()["digits"].resize


def test_mistakes_are_refused_before_anything_is_written(finished_store: Path, tmp_path: Path) -> None:
    run = finished_store / pick(finished_store, adapter="lora", bits=1, task="digits")["run_id"]
    (tmp_path / "there").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    torch.manual_seed(1)
    other: Any = create(replace(read(run).backbone, weights="random"), drop_path=0.0)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    before = sorted(tmp_path.rglob("*"))
    for arguments, expected in (
        ([run, tmp_path / "there", "--to", "onnx"], "exists already"),
        ([run, tmp_path / "no" / "x", "--to", "onnx"], "no such folder"),
        ([run / "typo", tmp_path / "x", "--to", "onnx"], "typo"),
        ([run, tmp_path / "x", "--to", "onxx"], "onxx"),
        ([run, tmp_path / "x"], "--to"),
        *(
            ([run, tmp_path / "x", "--to", form, "--backbone-weights", tmp_path / name], said)
            for form in FORMS
            for name, said in (
                ("typo.pth", "typo.pth: no such file"),
                ("other.pth", "trained on other weights"),
            )
        ),
        ([tmp_path / "there", tmp_path / "x", "--to", "timm"], "there"),
    ):
        done = quickly("export", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr
    for arguments, expected in (
        (
            [tmp_path / "empty", tmp_path / "x", "--to", "petl-bench"],
            "empty: this folder holds no .bin or .safetensors file and no folder of PEFT",
        ),
        ([tmp_path / "empty", tmp_path / "x.bin", "--to", "petl-vit"], "holds no .safetensors file\n"),
        ([tmp_path / "peft", tmp_path / "x.bin", "--to", "petl-vit"], "only be converted --to petl-bench"),
        ([run / ADAPTER, tmp_path / "x", "--to", "petl-bench", "--backbone", "pocket"], "is for folders of"),
        ([tmp_path / "peft", tmp_path / "x", "--to", "petl-bench", "--bits", "1"], "--bits: leave it out"),
    ):
        done = quickly("convert", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there").read_text() == "mine"
