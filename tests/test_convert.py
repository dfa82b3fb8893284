"""`convert`: checkpoints in the released format to adapter files and back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from petl_bench import packing
from petl_bench.backbones.families import build
from petl_bench.config import group_config
from petl_bench.model import restore
from petl_bench.packing import AdapterFile, StoredTensor, petl_vit
from petl_bench.quantizers import FakeQuantize
from petl_bench.run.execute import read_metadata
from petl_bench.types import BackboneSpec
from tests import golden
from tests.conftest import error_of, json_lines, petl, quickly
from tests.golden.make import FLIPPED
from tests.reference import released
from tests.reference.adapted import Reference
from tests.test_adapter_sizes import PAYLOADS, adapter_entries, head_entries, size
from tests.trees import vtab_task

METADATA = {
    "adapter": "adaptformer",
    "hidden": "2",
    "bits": "1",
    "quantizer": "l1_median",
    "scale": "0.1",
    "head": "binary",
    "task": "vtab_kitti",
    "normalization": "none",
    "backbone": "vit_b16_in21k",
    "backbone_sha256": "made-up",
}
"""Metadata of a run of ours; kitti has 4 classes (its manifest)."""
YAML = {
    "backbone": "vit_base_patch16_224_in21k",
    "bit": 1,
    "dataset": "kitti",
    "dim": 2,
    "method": "adaptformer-bihead",
    "num_class": 4,
    "scale": 0.1,
}
"""The same facts in the words of the released .yaml files."""
SIZE = 24 * (768 * 2 // 8 + 8) + 96 * 4 + 8
"""Bytes of its .bin, 5192: 24 matrices at 1 bit with 8 bytes of statistics each, and a binary head."""

SIDE = 64
"""Side in pixels of images where their size is not the subject: 16 patches."""


def made(seed: int = 0, classes: int = 4, **changes: object) -> AdapterFile:
    """Return a file with random tensors of the layout that its metadata states."""
    meta = METADATA | {key: str(value) for key, value in changes.items()}
    bits, random = int(meta["bits"]), np.random.default_rng(seed)
    parts = (
        adapter_entries(meta["adapter"], int(meta["hidden"]), bits),
        head_entries(classes, meta["head"] == "binary"),
    )

    def filled(entry: packing.Entry) -> StoredTensor:
        if entry.bits == 32:
            return StoredTensor(entry, values=random.normal(size=entry.shape).astype(np.float32))
        codes = random.integers(0, 2**entry.bits, entry.shape, dtype=np.uint8)
        mean, std = np.float32(random.normal()), np.float32(random.uniform(0.01, 1))
        return StoredTensor(entry, codes=codes, mean=float(mean), std=float(std))

    return AdapterFile(meta, *([filled(entry) for entry in part] for part in parts))


def theirs(folder: Path, **changes: object) -> Path:
    """Write x.bin and x.yaml with these keys changed; the value None removes a key."""
    file = made()
    content = b"".join(t.to_bytes() for t in (*file.adapter, *file.head))
    assert len(content) == SIZE
    (folder / "x.bin").write_bytes(content)
    values = {key: value for key, value in (YAML | changes).items() if value is not None}
    (folder / "x.yaml").write_text(yaml.safe_dump(values))
    return folder / "x.bin"


def ours(folder: Path, file: AdapterFile) -> Path:
    path = folder / "ours.safetensors"
    path.write_bytes(packing.dump(file))
    return path


def import_(source: Path, *options: object) -> AdapterFile:
    target = source.with_suffix(".safetensors")
    done = quickly("convert", source, target, "--to", "petl-bench", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return packing.load(target.read_bytes(), "")


# Checkpoints in the released format


def entropy(hidden: int) -> float:
    """Bits per weight of a stand-in's signs: one unit is random, the others repeat it but for FLIPPED."""
    of_a_flip = -FLIPPED * np.log2(FLIPPED) - (1 - FLIPPED) * np.log2(1 - FLIPPED)
    return (1 + (hidden - 1) * of_a_flip) / hidden


# Greatest bits per weight, statistics included and the head left out. Those of the released checkpoints were
# measured when the coder was written. A stand-in may take 0.1 more than the entropy of its signs, for 64
# bits of statistics in 768 * hidden weights and for what the model takes to learn.
LIMITS = {
    "adaptformer-bihead/kitti-bit1-dim4": entropy(4) + 0.1,
    "lora-bihead/kitti-bit1-dim2": entropy(2) + 0.1,
    "adaptformer/cifar-bit1-dim32": 0.61,
    "adaptformer-bihead/svhn-bit1-dim32": 0.98,
    "lora/eurosat-bit1-dim32": 0.87,
    "lora-bihead/clevr_dist-bit1-dim32": 0.31,
}


@pytest.mark.parametrize("checkpoint", golden.CHECKPOINTS, ids=str)
def test_released_files_come_back_to_the_byte(checkpoint: golden.Checkpoint, tmp_path: Path) -> None:
    source = checkpoint.bin
    middle, target = tmp_path / "a.coded", tmp_path / "b.bin"
    assert quickly("convert", source, middle, "--to", "petl-bench").returncode == 0
    assert quickly("convert", middle, target, "--to", "petl-vit").returncode == 0
    assert target.read_bytes() == source.read_bytes()
    assert target.with_suffix(".yaml").read_bytes() == checkpoint.settings.read_bytes()
    (found,) = json_lines(quickly("inspect", middle, "--json").stdout)
    stated = yaml.safe_load(checkpoint.settings.read_text())
    method, _, head = stated["method"].partition("-")
    assert found["adapter"] == method
    assert found["head"] == ("binary" if head else "linear")
    assert (found["hidden"], found["bits"], found["classes"]) == (stated["dim"], 1, stated["num_class"])
    assert (found["scale"], found["task"]) == (stated["scale"], f"vtab_{stated['dataset']}")
    assert (found["backbone"], found["quantizer"]) == ("vit_b16_in21k", "l1_median")
    assert sum(tensor["bytes_raw"] for tensor in found["tensors"]) == source.stat().st_size
    assert found["bytes_adapter"] + found["bytes_head"] <= source.stat().st_size
    assert found["bytes_overhead"] <= 512
    check_bits_per_weight(
        checkpoint, packing.load(middle.read_bytes(), ""), import_(middle, "--packing", "raw")
    )


def check_bits_per_weight(checkpoint: golden.Checkpoint, coded: AdapterFile, raw: AdapterFile) -> None:
    """Coded, the adapter takes less than one bit per weight, and loses nothing."""
    if checkpoint.hidden > 1:
        assert coded.bits_per_weight <= LIMITS[checkpoint.name]
        assert coded.packing == "coded"
    else:  # nothing to predict a sign from: 24 or 48 matrices of 768 bits and 8 bytes of statistics
        matrices = {"adaptformer": 24, "lora": 48}[checkpoint.method.partition("-")[0]]
        assert coded.bytes_adapter <= matrices * (768 // 8 + 8) + 16
    assert raw.packing == "raw"
    assert raw.bytes_adapter == raw.bytes_adapter_raw == coded.bytes_adapter_raw
    for one, other in zip((*coded.adapter, *coded.head), (*raw.adapter, *raw.head), strict=True):
        assert one.to_bytes() == other.to_bytes()


@pytest.fixture(scope="module")
def vit() -> dict[str, torch.Tensor]:
    """Return the state of a ViT-B/16 for images of side SIDE with random weights in float64, as `restore`
    builds it.
    """
    changes = {"weights": "random", "image_size": SIDE}
    spec = BackboneSpec(**group_config("backbone", "vit_b16_in21k") | changes)
    return {key: value.double() for key, value in build(spec)[0].state_dict().items()}


@pytest.mark.parametrize("checkpoint", [c for c in golden.CHECKPOINTS if c.hidden > 1], ids=str)
@pytest.mark.sampled(4)
def test_logits_are_those_of_the_plain_reference(
    checkpoint: golden.Checkpoint, vit: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Compare on a ViT-B/16 with random weights in float64, where only the decoded weights are float32."""
    source, method, name = tmp_path / "x.bin", checkpoint.method, str(checkpoint)
    shutil.copy(checkpoint.bin, source)
    shutil.copy(checkpoint.settings, source.with_suffix(".yaml"))
    file = import_(source, "--packing", "raw")
    facts = read_metadata(file, name)
    assert facts.backbone_checksum is None
    backbone = replace(facts.model.backbone, weights="random", image_size=SIDE)
    network = restore(replace(facts.model, backbone=backbone), file, name).double().eval()
    stated = yaml.safe_load(source.with_suffix(".yaml").read_text())
    tensors = released.values(source.read_bytes(), method, stated["dim"], stated["num_class"])
    tensors.setdefault("bias", np.zeros(stated["num_class"]))
    reference = Reference(
        vit,
        {key: torch.tensor(value).double() for key, value in tensors.items()},
        12,  # heads of ViT-B (Dosovitskiy et al. 2021, table 1)
        method.removesuffix("-bihead"),
        "linear",  # its weight is decoded already, its bias zero where there is none
        32,
        stated["scale"],
    )
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        found, expected = network(images), reference.logits(images)
        reference.scale = 0.0
        without = reference.logits(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected - without).abs().max() > 1e-2  # the adapter does something to agree on


# Files of any width and head


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("head", ["linear", "binary"])
@pytest.mark.parametrize("adapter", ["adaptformer", "lora"])
@pytest.mark.sampled(each=2)
def test_a_file_of_ours_comes_back_with_its_settings(
    adapter: str, head: str, bits: int, tmp_path: Path
) -> None:
    file = made(adapter=adapter, head=head, bits=bits, hidden=3, quantizer=petl_vit.QUANTIZERS[bits])
    target = tmp_path / "x.bin"
    done = quickly("convert", ours(tmp_path, file), target, "--to", "petl-vit")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    entries = [*adapter_entries(adapter, 3, bits), *head_entries(4, head == "binary")]
    assert target.stat().st_size == size(entries)
    assert target.read_bytes() == b"".join(t.to_bytes() for t in (*file.adapter, *file.head))
    back = import_(target)
    # The one thing that the authors' format does not hold.
    assert back.metadata == {key: v for key, v in file.metadata.items() if key != "backbone_sha256"}
    assert packing.dump(AdapterFile(file.metadata, back.adapter, back.head)) == packing.dump(file)


def test_the_yaml_is_the_authors(tmp_path: Path) -> None:
    assert quickly("convert", ours(tmp_path, made()), tmp_path / "x.bin", "--to", "petl-vit").returncode == 0
    assert yaml.safe_load((tmp_path / "x.yaml").read_text()) == YAML


def test_a_task_that_is_not_vtabs_keeps_its_name(tmp_path: Path) -> None:
    file = made(task="fgvc_pets", classes=37)  # the manifest's number
    assert quickly("convert", ours(tmp_path, file), tmp_path / "x.bin", "--to", "petl-vit").returncode == 0
    assert import_(tmp_path / "x.bin").metadata["task"] == "fgvc_pets"


OPTIONS = {"--adapter": "adaptformer", "--bits": 1, "--hidden": 2, "--scale": 0.1, "--classes": 4}


def flat(options: dict[str, object]) -> list[object]:
    return [part for pair in options.items() for part in pair]


def test_options_stand_in_for_the_yaml(tmp_path: Path) -> None:
    source = theirs(tmp_path)
    expected = import_(source).metadata
    source.with_suffix(".yaml").unlink()
    source.with_suffix(".safetensors").unlink()
    assert import_(source, *flat(OPTIONS), "--task", "vtab_kitti").metadata == expected


def test_options_override_the_yaml(tmp_path: Path) -> None:
    meta = import_(theirs(tmp_path, dim=9, scale=1), "--hidden", 2, "--scale", 10).metadata
    assert (meta["hidden"], meta["scale"]) == ("2", "10.0")


def test_a_file_without_a_task_is_evaluated_on_a_named_one(tmp_path: Path) -> None:
    source = theirs(tmp_path, dataset=None)
    middle = source.with_suffix(".safetensors")
    done = quickly("convert", source, middle, "--to", "petl-bench")
    assert "its task is unknown" in done.stderr
    assert "name it with --task" in error_of(quickly("eval", middle))
    done = quickly("convert", middle, tmp_path / "y.bin", "--to", "petl-vit")
    assert done.returncode == 0
    assert "dataset" not in yaml.safe_load((tmp_path / "y.yaml").read_text())


def test_eval_of_an_imported_file_warns_of_what_it_cannot_check(tmp_path: Path) -> None:
    """Evaluate with full-size weights from a file on four images in the layout of VTAB-1K."""
    file = import_(theirs(tmp_path))
    vtab_task(tmp_path / "own", 4, {"train": 4, "val": 4, "test": 4}, ".png")
    spec = replace(read_metadata(file, "").model.backbone, weights="random")
    with torch.device("meta"):  # no seconds for random numbers
        shapes = {key: value.shape for key, value in build(spec)[0].state_dict().items()}
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "w.safetensors")
    done = quickly(
        *("eval", tmp_path / "x.safetensors", "--task", "folder", "--root", tmp_path / "own"),
        *("--weights", tmp_path / "w.safetensors", "--json"),
        PETL_BENCH_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert "checksum of its backbone" in done.stderr
    (row,) = json_lines(done.stdout)
    assert (row["n_test"], row["acc_row"], row["agrees"]) == (4, None, None)
    assert (row["adapter"], row["bits"], row["scale"], row["head"]) == ("adaptformer", 1, 0.1, "binary")


def test_the_real_command(tmp_path: Path) -> None:
    source = theirs(tmp_path)
    target, back = tmp_path / "a.safetensors", tmp_path / "b.bin"
    done = petl("convert", source, target, "--to", "petl-bench")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert petl("convert", target, back, "--to", "petl-vit").returncode == 0
    assert back.read_bytes() == source.read_bytes()
    assert "exists already" in error_of(quickly("convert", target, back, "--to", "petl-vit"))
    assert quickly("convert", source, target, "--to", "onnx").returncode == 2
    assert quickly("convert", source, target).returncode == 2  # --to is needed


def test_sizes_are_the_published_ones() -> None:
    # The adapter alone at 1 bit (test_adapter_file), and a head of 10 classes.
    for adapter, hidden, expected in PAYLOADS:
        for head, extra in (("linear", 4 * 769 * 10), ("binary", 96 * 10 + 8)):
            assert petl_vit.BinLayout(adapter, hidden, 1, head, 10).nbytes == expected + extra


@pytest.mark.parametrize("bits", petl_vit.QUANTIZERS)
def test_weights_come_back_as_the_released_code_loads_them(bits: int, tmp_path: Path) -> None:
    """Write a file of trained-looking weights by the plain reference, at each of its bit-widths."""
    random, written, loaded = np.random.default_rng(bits), [], {}
    for name, shape in released.shapes("adaptformer", 1, 4).items():
        weight = random.normal(0.001, 0.02, shape).astype(np.float32)
        if released.in_one_bit(name, "adaptformer"):
            data, loaded[name] = released.stored(weight, bits)
            written.append(data)
        else:
            written.append(weight.tobytes())
    (tmp_path / "x.bin").write_bytes(b"".join(written))
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(YAML | {"bit": bits, "dim": 1, "method": "adaptformer"}))
    file = import_(tmp_path / "x.bin")
    quantize = FakeQuantize(file.metadata["quantizer"], bits)
    for tensor in file.adapter:
        assert tensor.codes is not None
        found = quantize.decode(torch.from_numpy(tensor.codes), tensor.mean, tensor.std).numpy()
        # The next float32 at most: at 1 to 4 bits our levels are solved further than theirs.
        np.testing.assert_array_max_ulp(found, loaded[tensor.entry.name], maxulp=0 if bits == 8 else 64)
    back = tmp_path / "back.bin"
    assert quickly("convert", tmp_path / "x.safetensors", back, "--to", "petl-vit").returncode == 0
    assert back.read_bytes() == (tmp_path / "x.bin").read_bytes()


def test_another_codebook_is_not_written_as_theirs(tmp_path: Path) -> None:
    done = quickly("convert", ours(tmp_path, made(bits=8)), tmp_path / "x.bin", "--to", "petl-vit")
    error = error_of(done)
    assert "quantizer l1_median: at 8 bits the authors' format has l1_median_500 alone" in error
    assert not (tmp_path / "x.bin").exists()
