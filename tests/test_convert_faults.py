"""`convert` refuses what it cannot read or write, and leaves no files behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import error_of, quickly
from tests.test_convert import OPTIONS, SIZE, flat, made, ours, theirs


def refused(folder: Path, *arguments: object) -> str:
    """Return the message of a refused conversion after checking that it left no files behind."""
    before = sorted(folder.rglob("*"))
    message = error_of(quickly("convert", *arguments))
    assert sorted(folder.rglob("*")) == before
    return message


YAMLS = [
    # 96 * 5 + 8 is 96 more than the head of 4; 24 * 96 each hidden unit and bit more.
    ({"num_class": 5}, [f"{SIZE} bytes", f"{SIZE + 96} (binary head)", "it would fit classes 4"]),
    ({"dim": 4, "dataset": None}, [f"make {SIZE + 2 * 24 * 96} (binary", "it would fit hidden 2"]),
    ({"bit": 2}, [f"make {SIZE + 24 * 2 * 96} (binary", "bits 1", "hidden 1"]),
    ({"method": "adaptformer"}, ["(linear head)", "would fit head binary"]),
    ({"bit": 32}, ["bits 32", "drops 32-bit adapters"]),
    ({"bit": 3}, ["bits 3", "1 or 2 or 4 or 8"]),
    ({"dim": 0}, ["hidden 0 is out of range"]),
    ({"num_class": 0}, ["classes 0 is out of range"]),
    ({"dim": "two"}, ["x.yaml", "dim is 'two'", "a whole number"]),
    ({"bit": True}, ["bit is True"]),
    ({"scale": "1"}, ["scale is '1'", "a number"]),
    ({"scale": float("inf")}, ["scale inf is out of range"]),
    ({"method": "adaptformr"}, ["unknown method 'adaptformr'", "did you mean 'adaptformer'"]),
    ({"backbone": "swin"}, ["backbone 'swin'", "vit_base_patch16_224_in21k"]),
    ({"dataset": "kitty"}, ["unknown task 'kitty'", "'vtab_kitti'"]),
    ({"dataset": "cifar"}, ["classes 4, but vtab_cifar has 100"]),
    ({"scale": None}, ["x.yaml does not state all", "give --scale"]),
    ({"method": None}, ["give --adapter;"]),
]


@pytest.mark.parametrize(("changes", "named"), YAMLS, ids=[str(changes) for changes, _ in YAMLS])
def test_settings_that_do_not_fit_are_refused(changes: dict, named: list[str], tmp_path: Path) -> None:
    source = theirs(tmp_path, **changes)
    message = refused(tmp_path, source, tmp_path / "out", "--to", "petl-bench")
    assert str(source.with_suffix("")) in message
    assert all(part in message for part in named), message


@pytest.mark.parametrize("content", [b"- 1\n", b"", b"a: [\n", b"\xff\xfe\xfd"])
def test_a_foreign_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    source = theirs(tmp_path)
    source.with_suffix(".yaml").write_bytes(content)
    assert "x.yaml" in refused(tmp_path, source, tmp_path / "out", "--to", "petl-bench")


def test_missing_options_are_named_with_what_would_fit(tmp_path: Path) -> None:
    source = theirs(tmp_path)
    source.with_suffix(".yaml").unlink()
    to = (tmp_path / "out", "--to", "petl-bench")
    message = refused(tmp_path, source, *to)
    assert "no x.yaml beside it; give --adapter, --hidden, --bits, --classes, --scale" in message
    for name in OPTIONS:
        message = refused(tmp_path, source, *to, *flat({k: v for k, v in OPTIONS.items() if k != name}))
        assert f"give {name}; " in message
        assert f"{SIZE} bytes fit adapter adaptformer, hidden 2, bits 1, head binary, classes 4" in message


@pytest.mark.parametrize("cut", [1, 4, 3000])
def test_a_truncated_bin_is_refused(cut: int, tmp_path: Path) -> None:
    source = theirs(tmp_path)
    source.write_bytes(source.read_bytes()[:-cut])
    message = refused(tmp_path, source, tmp_path / "out", "--to", "petl-bench")
    assert f"{SIZE - cut} bytes" in message
    assert "is the file truncated?" in message


@pytest.mark.parametrize("number", [np.nan, np.inf, 0.0, -1.0])
def test_numbers_that_no_training_leaves_are_refused(number: float, tmp_path: Path) -> None:
    source = theirs(tmp_path)
    data = source.read_bytes()
    source.write_bytes(data[:-4] + np.array(number, "<f4").tobytes())  # the std of the head
    message = refused(tmp_path, source, tmp_path / "out", "--to", "petl-bench")
    assert "tensor weight holds no trained values" in message


OURS = [
    ({"adapter": "linear"}, "adapter linear: the authors' format has adaptformer or lora alone"),
    ({"adapter": "bitfit"}, "adapter bitfit"),
    ({"bits": "32", "quantizer": "none"}, "drops 32-bit adapters"),
    ({"bits": "3"}, "1 or 2 or 4 or 8"),
    ({"quantizer": "minmax"}, "quantizer minmax: at 1 bit the authors' format has l1_median alone"),
    ({"backbone": "vit_s14_dinov2"}, "backbone vit_s14_dinov2: the authors' format has vit_b16_in21k alone"),
    ({"normalization": "half"}, "normalization half: the authors' format has none alone"),
    ({"head": "cosine"}, "head cosine: the authors' format has linear or binary alone"),
    ({"hidden": "3"}, f"{SIZE} bytes"),  # metadata and tensors that contradict each other
]


@pytest.mark.parametrize(("changes", "named"), OURS, ids=[str(changes) for changes, _ in OURS])
def test_files_that_their_format_cannot_hold_are_refused(changes: dict, named: str, tmp_path: Path) -> None:
    file = made()
    file.metadata.update(changes)
    assert named in refused(tmp_path, ours(tmp_path, file), tmp_path / "out.bin", "--to", "petl-vit")


def test_tensors_of_another_shape_are_refused(tmp_path: Path) -> None:
    file = made()
    file.adapter[:2] = reversed(file.adapter[:2])
    message = refused(tmp_path, ours(tmp_path, file), tmp_path / "out.bin", "--to", "petl-vit")
    assert "its tensors are not those of" in message


def test_options_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    source = ours(tmp_path, made())
    wrong = {
        "--adapter": "lora",
        "--bits": 2,
        "--hidden": 1,
        "--scale": 1,
        "--classes": 5,
        "--head": "linear",
    }
    for name, value in wrong.items():
        message = refused(tmp_path, source, tmp_path / "x.bin", "--to", "petl-vit", name, value)
        assert message.startswith(f"{name} {value}")
    done = quickly("convert", source, tmp_path / "x.bin", "--to", "petl-vit", *flat(OPTIONS))
    assert done.returncode == 0


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    source, taken = theirs(tmp_path), tmp_path / "taken.yaml"
    taken.write_text("mine")
    assert "taken.yaml: exists already" in refused(tmp_path, source, taken, "--to", "petl-bench")
    adapter = ours(tmp_path, made())
    assert "exists already" in refused(tmp_path, adapter, source, "--to", "petl-vit")
    message = refused(tmp_path, adapter, taken.with_suffix(".bin"), "--to", "petl-vit")
    assert "taken.yaml: exists already" in message  # it would be the .yaml beside
    assert taken.read_text() == "mine"


def test_places_that_cannot_be(tmp_path: Path) -> None:
    source, adapter = theirs(tmp_path), ours(tmp_path, made())
    gone = tmp_path / "gone" / "x.bin"
    assert f"{gone}: cannot be read" in refused(tmp_path, gone, tmp_path / "out", "--to", "petl-bench")
    assert f"{gone}: cannot be written" in refused(tmp_path, source, gone, "--to", "petl-bench")
    assert f"{gone}: cannot be written" in refused(tmp_path, adapter, gone, "--to", "petl-vit")
    message = refused(tmp_path, adapter, tmp_path / "out", "--to", "petl-vit")
    assert "the name of DST must end with .bin" in message
    packed = ("--to", "petl-bench", "--bits", "1")
    assert "adapter files hold their settings" in refused(tmp_path, adapter, tmp_path / "out", *packed)
    packed = ("--to", "petl-vit", "--packing", "raw")
    assert "a .bin file has only one packing" in refused(tmp_path, adapter, tmp_path / "out.bin", *packed)
    message = refused(tmp_path, source, tmp_path / "out.bin", "--to", "petl-vit")
    assert "not a petl-bench adapter file" in message
