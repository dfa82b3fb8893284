"""Files in the place of weights that are none, and numbers that no weights have."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import petl_bench
from petl_bench.backbones import weights
from petl_bench.errors import UserError
from tests.conftest import error_of, quickly
from tests.test_checkpoints import VIT, flax
from tests.test_weights_files import loaded, refused, state_of, vit


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_numbers_that_are_not_finite_are_refused(value, suffix, tmp_path):
    state = {name: tensor.clone() for name, tensor in state_of("vit").items()}
    state["norm.weight"][3] = value
    path = (tmp_path / "w").with_suffix(suffix)
    if suffix == ".npz":
        np.savez(path, **flax(state))
    else:
        (save_file if suffix == ".safetensors" else torch.save)(state, path)
    assert "1 of " in refused(VIT, path)
    assert "hold NaN or infinity" in refused(VIT, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "a web page, not weights"),
        (b"<html>404</html>", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".ckpt"])
def test_pages_and_pointers_are_told_from_weights(content, said, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert said in refused(VIT, path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors"])
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_a_file_is_read_by_its_content_whatever_its_suffix(save, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    save({name: value.clone() for name, value in state_of("vit").items()}, path)
    assert torch.equal(loaded(VIT, path)[0]["norm.bias"], state_of("vit")["norm.bias"])
    path.write_bytes(b"")
    assert "an empty file" in refused(VIT, path)


@pytest.mark.parametrize("kind", ["pipe", "zeros", "sparse", "folder", "nothing"])
def test_what_is_no_plain_file_is_refused_unread(kind, tmp_path):
    path = tmp_path / "w.pth"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 10**12)
    elif kind == "folder":
        path.mkdir()
    said = {"pipe": "is a pipe", "zeros": "is a device", "sparse": "has 1,000,000,000,000 bytes, more than"}
    said |= {"folder": "is a directory", "nothing": "no such file"}
    with pytest.raises(UserError, match=f"^backbone.weights={path}: {said[kind]}"):
        weights.find(str(path))


@pytest.mark.parametrize("changed", [{"depth": 1}, {"patch_size": 16}, {"init_values": 0.5}])
def test_an_npz_of_another_architecture_is_refused(changed, tmp_path):
    np.savez(tmp_path / "w.npz", **flax(state_of("vit")))
    assert "do not fit the architecture" in refused(vit(**changed), tmp_path / "w.npz")


def test_whole_numbers_are_no_weights(tmp_path):
    torch.save({name: value.to(torch.int8) for name, value in state_of("vit").items()}, tmp_path / "w.pth")
    message = refused(VIT, tmp_path / "w.pth")
    assert "'cls_token' has values of torch.int8" in message


def test_pickled_objects_are_loaded_nowhere():
    calls = [
        (path, call)
        for path in Path(petl_bench.__file__).parent.rglob("*.py")
        for call in re.findall(r"torch\.load\([^)]*\)", path.read_text())
    ]
    assert calls
    assert all("weights_only=True" in call for _, call in calls), calls


def test_a_sweep_says_what_it_takes_and_refuses_before_anything_runs(tmp_path):
    own = ["backbone=timm", f"backbone.name={VIT.name}", f"backbone.image_size={VIT.image_size}"]
    own += [f"backbone.options.{key}={value}" for key, value in VIT.options.items()]
    overrides = ["sweep=none", "task=digits", "scale=1", *own]
    state = state_of("vit")
    torch.save({"module." + name: value for name, value in state.items()}, tmp_path / "w.pth.tar")
    given = f"backbone.weights={tmp_path / 'w.pth.tar'}"
    done = quickly("sweep", "--dry-run", *overrides, given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the tensors under 'module.' are taken" in done.stderr
    torch.save({name: value for name, value in state.items() if name != "norm.bias"}, tmp_path / "w.pth")
    given = f"backbone.weights={tmp_path / 'w.pth'}"
    done = quickly("sweep", *overrides, given, "launcher=local", cwd=tmp_path)
    assert "1 tensor missing ['norm.bias']" in error_of(done)
    assert not (tmp_path / "results").exists()
