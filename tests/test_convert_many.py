"""`convert` of many files: a repository of checkpoints, folders, and several sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import error_of, quickly
from tests.test_convert import YAML, made, theirs


def repository(root: Path) -> list[Path]:
    """Write checkpoints where the authors' repository keeps them, and return the .bin files."""
    bins = []
    for method, data in (("adaptformer-bihead", "kitti"), ("lora-bihead", "kitti")):
        for hidden in (1, 2):
            file = made(seed=hidden, adapter=method.split("-")[0], hidden=hidden)
            name = f"{data}-bit1-dim{hidden}"
            settings = root / "configs" / method / f"{name}.yaml"
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(yaml.safe_dump(YAML | {"dim": hidden, "method": method}))
            bins.append(root / "models_bin" / method / f"{name}.bin")
            bins[-1].parent.mkdir(parents=True, exist_ok=True)
            bins[-1].write_bytes(b"".join(t.to_bytes() for t in (*file.adapter, *file.head)))
    return bins


def test_a_repository_is_converted_there_and_back(tmp_path: Path) -> None:
    bins = repository(tmp_path / "theirs")
    inside, back = tmp_path / "ours", tmp_path / "back"
    done = quickly("convert", tmp_path / "theirs" / "models_bin", inside, "--to", "petl-bench")
    assert done.returncode == 0, done.stderr
    assert "wrote 4 files" in done.stderr
    done = quickly("convert", inside, back, "--to", "petl-vit")
    assert done.returncode == 0, done.stderr
    for source in bins:
        found = back / source.relative_to(tmp_path / "theirs" / "models_bin")
        assert found.read_bytes() == source.read_bytes()
        assert yaml.safe_load(found.with_suffix(".yaml").read_text())["dim"] == int(source.stem[-1])


def test_of_many_sources_those_that_can_be_are_converted(tmp_path: Path) -> None:
    bins = repository(tmp_path / "theirs")
    bins[1].write_bytes(bins[1].read_bytes()[:-1])
    target = tmp_path / "ours"
    done = quickly("convert", *bins[:2], target, "--to", "petl-bench")
    assert done.returncode == 1
    assert f"error: {bins[1]}" in done.stderr
    assert "1 source could not be converted" in done.stderr
    assert [path.name for path in target.iterdir()] == [f"{bins[0].stem}.safetensors"]
    again = quickly("convert", *bins[:2], target, "--to", "petl-bench")
    assert "exists already" in error_of(again)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/x.bin", "b/x.bin"], "both would become"),
        (["a/x.bin", "none.bin"], "no such file or folder"),
        (["a/x.bin", "empty"], "holds no .bin or .safetensors file"),
    ],
)
def test_many_sources_are_checked_before_anything_is_written(
    names: list[str], message: str, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        theirs(tmp_path / folder)
    (tmp_path / "empty").mkdir()
    target = tmp_path / "ours"
    done = quickly("convert", *(tmp_path / name for name in names), target, "--to", "petl-bench")
    assert message in error_of(done)
    assert not target.exists()
