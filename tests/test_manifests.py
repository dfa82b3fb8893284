"""Manifests are read strictly, and their facts reach the plan."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from petl_bench.config import plan, plan_task
from petl_bench.data import manifest_files, manifests
from petl_bench.errors import UserError
from petl_bench.types import DataSettings, Manifest, TaskSpec
from tests.test_suites import recipe

BUNDLED = manifest_files.MANIFEST_DIR


@pytest.fixture
def manifest_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide a directory of manifests that holds only digits, for tests to change."""
    (tmp_path / "digits.yaml").write_text((manifest_files.MANIFEST_DIR / "digits.yaml").read_text())
    monkeypatch.setattr(manifest_files, "MANIFEST_DIR", tmp_path)
    manifests.cache_clear()
    yield tmp_path
    manifests.cache_clear()


def spoil(directory: Path, **changes: object) -> None:
    """Change keys of digits.yaml; the value None removes a key."""
    path = directory / "digits.yaml"
    facts = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in facts.items() if value is not None}))


def test_a_manifest_is_read_as_it_is_written(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text())
    found = dataclasses.asdict(manifests()["digits"])
    assert {key: found[key] for key in facts} == facts
    others = {key: value for key, value in found.items() if key not in facts}
    assert not any(others.values())  # what is not said is 0 or empty
    assert set(manifests()) == {"digits"}


REQUIRED = ["name", "suite", "group", "classes", "source", "splits", "metric", "resize"]


def test_the_keys_that_each_manifest_must_have() -> None:
    without = (dataclasses.MISSING, dataclasses.MISSING)
    found = [f.name for f in dataclasses.fields(Manifest) if (f.default, f.default_factory) == without]
    assert found == REQUIRED


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_key_is_refused(manifest_dir: Path, missing: str) -> None:
    spoil(manifest_dir, **{missing: None})
    with pytest.raises(UserError, match=rf"digits\.yaml: .*{missing}"):
        manifests()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clases": 10}, "clases"),
        ({"classes": "many"}, "classes"),
        ({"splits": {"train": 800, "val": 200}}, "test"),
        ({"splits": {"train": 800, "val": 200, "test": "all"}}, "test"),
        ({"splits": {"train": 800, "val": 200, "test": 0}}, "positive"),
        ({"splits": {"train": 800, "val": 200, "test": 797, "extra": 1}}, "test"),
        ({"splits": {"train800": 800, "val200": 200, "test": 797}}, "train"),
        ({"name": "numbers"}, "numbers"),
        ({"classes": -1}, "classes"),
        ({"classes": 0}, "splits"),  # the user's own data: everything is counted
        ({"train_classes": 11}, "train_classes"),
        ({"resize": "squash"}, "squash.*stretch"),
        ({"metric": "error"}, "error.*accuracy"),
        ({"shots": [1]}, "splits|split_seeds"),
        ({"split_seeds": [0]}, "split_seeds"),
        ({"lists": {"test_meta.list": {"lines": 3}}}, "sha256"),
        ({"lists": {"test_meta.list": {"lines": 3, "sha256": "0", "bytes": 4}}}, "bytes"),
        ({"shots": ["one"]}, "shots"),
    ],
)
def test_a_wrong_key_is_refused(manifest_dir: Path, changes: dict[str, object], named: str) -> None:
    spoil(manifest_dir, **changes)
    with pytest.raises(UserError, match=rf"digits\.yaml: .*{named}"):
        manifests()


@pytest.mark.parametrize("text", ["name: [", "- a list", ""])
def test_a_file_that_is_no_manifest_is_refused(manifest_dir: Path, text: str) -> None:
    (manifest_dir / "digits.yaml").write_text(text)
    with pytest.raises(UserError, match=r"digits\.yaml"):
        manifests()


def test_a_new_manifest_is_a_new_task(manifest_dir: Path) -> None:
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text()) | {"name": "figures", "suite": "mine"}
    (manifest_dir / "figures.yaml").write_text(yaml.safe_dump(facts))
    (spec,) = plan(["sweep=none", "task=figures", "scale=1"]).runs
    keys = ("name", "suite", "group", "classes", "source", "splits", "fingerprint", "resize")
    assert spec.task == TaskSpec(**{key: facts[key] for key in keys})
    assert spec.train == recipe("vtab")  # of a suite without a recipe of its own
    (manifest_dir / "figures.yaml").unlink()
    manifests.cache_clear()
    with pytest.raises(UserError, match="matches nothing"):
        plan(["sweep=none", "task=glob(fig*)"])


def test_a_few_shot_manifest_gives_no_training_size() -> None:
    facts = yaml.safe_load((manifest_files.MANIFEST_DIR / "fgvc_pets.yaml").read_text())
    assert manifest_files.read_manifest(yaml.safe_dump(facts), "pets.yaml") == manifests()["fgvc_pets"]
    facts["splits"] = {"train": 74, "val": 736, "test": 3669}
    with pytest.raises(UserError, match=r"^pets\.yaml: splits must give the sizes of test, val$"):
        manifest_files.read_manifest(yaml.safe_dump(facts), "pets.yaml")


def test_a_task_is_planned_without_looking_at_files() -> None:
    settings = DataSettings(root="/nowhere", images=500)
    facts = manifests()["fgvc_pets"]
    task = plan_task("fgvc_pets", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (4, 2, 0, {"root": "/nowhere"})
    assert (task.splits, task.fingerprint, task.resize) == (facts.splits, "", "crop")
    task = plan_task("tree", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (0, 2, 500, {"root": "/nowhere"})
    assert (task.classes, task.splits) == (0, {})
    task = plan_task("vtab_cifar", settings, 4, 2)
    assert (task.shots, task.split_seed, task.drawn, task.place) == (0, 0, 0, {"root": "/nowhere"})
    with pytest.raises(UserError, match="unknown task 'vtab_cifra': did you mean 'vtab_cifar'"):
        plan_task("vtab_cifra", settings)


def test_no_tuned_scale_is_said_with_the_way_out(manifest_dir: Path) -> None:
    shutil.copytree(BUNDLED, manifest_dir, dirs_exist_ok=True)  # tasks that tables of conf/tuned name
    facts = yaml.safe_load((manifest_dir / "digits.yaml").read_text()) | {"name": "figures"}
    (manifest_dir / "figures.yaml").write_text(yaml.safe_dump(facts))
    for protocol in ("fixed", "peek"):
        with pytest.raises(UserError, match=r"adaptformer.*figures.*scale=.*protocol=sealed"):
            plan(["sweep=none", "task=figures", "adapter=adaptformer", f"protocol={protocol}"])
    (spec,) = plan(["sweep=none", "task=figures", "adapter=adaptformer"]).runs
    assert spec.scale is None
