"""`petl-bench store check`: a sound store is clean; a flipped byte is named or tells nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from petl_bench.store import ADAPTER, ASIDE, ERROR, PREDICTIONS, ROW, SPEC
from petl_bench.store.check import NOTES
from petl_bench.types import row_from_dict, spec_from_dict, stored_id
from tests.conftest import json_lines, quickly
from tests.test_store_check import first, flip, kinds


@pytest.fixture(scope="module")
def base(finished_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for tests that only read."""
    copy = tmp_path_factory.mktemp("base") / "store"
    shutil.copytree(finished_store, copy)
    return copy


def test_a_sound_store_is_clean(base: Path) -> None:
    done = quickly("store", "check", "--store", base)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10 runs: no damage\n", "")
    (summary,) = json_lines(quickly("store", "check", "--store", base, "--json", "--repair").stdout)
    assert summary == {
        **{"summary": True, "store": str(base), "ok": True, "runs": 10, "problems": 0},
        **{"kinds": {}, "set_aside": {}},
    }
    assert not (base / ASIDE).exists()


# What nothing else tells: the columns of a row, or parts of a spec, that stand in one file alone.
ALONE = {
    *("acc_val", "acc_best_peek", "n_train", "params_trainable", "recipe", "recipe_name", "device"),
    *("seconds_search", "seconds_train", "seconds_eval", "images_per_second", "peak_memory_bytes"),
    *("scale_from", "lr_from", "searched"),
    *("version", "git_revision", "git_dirty", "torch_version", "pillow_version", "started_at", "finished_at"),
    *("kernels", "timm_version", "source_adapter", "source_quantizer", "source_head", "source_training"),
    "plugins",
}


def only_alone(file: str, before: bytes, after: bytes) -> bool:
    """Return whether a changed file differs only in what no other file of the run states."""
    if file == ROW:
        old, new = (vars(row_from_dict(json.loads(data))) for data in (before, after))
        return {name for name in old if old[name] != new[name]} <= ALONE
    if file == SPEC:
        ids = {stored_id(vars_of(data), "0" * 64) for data in (before, after)}
        return len(ids) == 1  # paths, and what only describes the backbone
    return file not in (ADAPTER, ERROR)


def vars_of(data: bytes) -> dict:
    spec_from_dict(json.loads(data))
    return json.loads(data)


@given(
    st.sampled_from([ADAPTER, PREDICTIONS, ROW, SPEC]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)
@example(ROW, 0.0, 1)
@example(SPEC, 0.999999, 32)
def test_any_flipped_byte_is_named_or_tells_nothing(base: Path, file: str, where: float, mask: int) -> None:
    path = first(base) / file
    before = path.read_bytes()
    try:
        flip(path, int(where * len(before)), mask)
        found = kinds(base, path.parent.name) - set(NOTES)
        assert found or only_alone(file, before, path.read_bytes())
    finally:
        path.write_bytes(before)
