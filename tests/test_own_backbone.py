"""Backbones that users name themselves: deprecated names, options, labels, input sizes, normalization."""

import dataclasses

import pytest
import timm
from timm.models import get_deprecated_models

from petl_bench.backbones import creation, families
from petl_bench.config import plan
from petl_bench.errors import UserError
from petl_bench.types import NORMALIZATIONS
from tests import tiny
from tests.conftest import error_of, json_lines, quickly, rows_of

ONE = ["sweep=none", "task=digits", "scale=1", "bits=1", "hidden=2", "launcher=local", "train.epochs=1"]
TINY = [
    *(
        "backbone=timm",
        "backbone.name=vit_tiny_patch16_224",
        "backbone.weights=random",
        "backbone.image_size=32",
    ),
    "backbone.options={patch_size:8,embed_dim:48,depth:2,num_heads:3}",
]
MODULES = ("vision_transformer", "swin_transformer", "convnext", "lowformer", "eva", "beit", "deit")


def backbone_of(*overrides):
    (run,) = plan([*ONE, *overrides]).runs
    return run.backbone


def test_every_deprecated_name_has_its_successor():
    deprecated = get_deprecated_models()
    assert len(deprecated) > 200
    for name, successor in deprecated.items():
        assert creation.current_name(name) == successor
        assert timm.is_model(successor)


def test_a_deprecated_name_is_the_run_of_its_successor_and_is_told_once(tmp_path):
    options = [*TINY[2:], "backbone=timm", "seed=0,1", "--dry-run", "--json"]
    deprecated = quickly("sweep", *ONE, *options, "backbone.name=vit_tiny_patch16_224_in21k", cwd=tmp_path)
    current = quickly(
        "sweep", *ONE, *options, "backbone.name=vit_tiny_patch16_224.augreg_in21k", cwd=tmp_path
    )
    assert deprecated.returncode == current.returncode == 0, deprecated.stderr
    assert deprecated.stdout == current.stdout
    said = "timm has deprecated this name; vit_tiny_patch16_224.augreg_in21k is used"
    assert deprecated.stderr.count(said) == 1
    assert said not in current.stderr


def test_a_tag_of_a_deprecated_name_is_refused():
    with pytest.raises(UserError, match=r"is called vit_tiny_patch16_224\.augreg_in21k now"):
        creation.current_name("vit_tiny_patch16_224_in21k.nonsense")


@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone.options={reg_tokens:4}"],
        ["backbone.options.reg_tokens=4"],
        ["backbone.options.reg_tokens=4", "backbone.options={depth:4}"],
    ],
)
def test_options_are_taken_from_dictionaries_and_nested_keys(overrides):
    assert backbone_of(*overrides).options == {
        **{"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2, "reg_tokens": 4}
    }


def test_options_multiply_the_runs():
    runs = plan([*ONE, "backbone.options.depth=2,3", "backbone.options.init_values=0.1,null"]).runs
    found = {(run.backbone.options["depth"], run.backbone.options["init_values"]) for run in runs}
    assert found == {(2, 0.1), (2, None), (3, 0.1), (3, None)}


def test_the_image_size_is_one_setting_by_either_name():
    by_option = backbone_of("backbone.options.img_size=64")
    assert by_option == backbone_of("backbone.image_size=64")
    with pytest.raises(UserError, match="are one setting"):
        plan([*ONE, "backbone.options.img_size=64", "backbone.image_size=32"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reg_tokenz": 4}, "timm cannot build it: VisionTransformer.__init__() got an unexpected keyword"),
        ({"depth": "many"}, "timm cannot build it: "),
        ({"num_heads": 0}, "timm cannot build it: "),
        ({"embed_dim": 50}, "timm cannot build it: "),
        *(({name: 1}, f"backbone.options.{name} is no option: ") for name in creation._ELSEWHERE),
    ],
)
def test_wrong_options_are_one_line(options, said):
    spec = dataclasses.replace(tiny.BACKBONE, options=tiny.BACKBONE.options | options)
    with pytest.raises(UserError) as caught:
        families.build(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_are_no_dictionary_are_refused(tmp_path):
    assert "backbone.options" in error_of(quickly("sweep", *ONE, "backbone.options=4", cwd=tmp_path))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_images_are_never_cut(family):
    """Every size builds a model that reads the last row and column, or is refused."""
    import torch

    spec = tiny.FAMILIES[family]
    step = {"ConvNeXt": 32, "SwinTransformer": 4, "LowFormer": 1}.get(family, 8)
    for size in (30, 32, 33, 36, 64):
        sized = dataclasses.replace(spec, image_size=size)
        if size % step:
            with pytest.raises(UserError, match=f"is no multiple of the {step} pixels of a patch"):
                families.build(sized)
            continue
        model = families.build(sized)[0].eval()
        images = torch.zeros(1, 3, size, size, requires_grad=True)
        model(images + 0.1).square().sum().backward()
        gradient = images.grad.abs().sum((0, 1))
        assert (gradient[-1] > 0).any(), size
        assert (gradient[:, -1] > 0).any(), size


def test_padding_takes_any_size():
    spec = dataclasses.replace(tiny.BACKBONE, image_size=30)
    with pytest.raises(UserError, match="choose 24 or 32"):
        families.build(spec)
    families.build(dataclasses.replace(spec, options=spec.options | {"dynamic_img_pad": True}))


def test_every_normalization_of_the_families_has_a_name():
    for module in MODULES:
        for name in timm.list_models(module=module, pretrained=True):
            stated = timm.get_pretrained_cfg(name)
            assert NORMALIZATIONS[creation.normalization(name)] == (stated.mean, stated.std)


@pytest.mark.parametrize(
    ("name", "normalization"),
    [
        ("vit_small_patch16_224", "half"),
        ("vit_small_patch14_dinov2", "imagenet"),
        ("vit_base_patch16_clip_224.openai", "clip"),
        ("vit_base_patch16_224_in21k", "half"),
    ],
)
@pytest.mark.sampled(1)
def test_a_recipe_that_normalizes_as_the_backbone_asks_timm(name, normalization, tmp_path):
    own = ["backbone=timm", f"backbone.name={name}"]
    (run,) = plan([*ONE, *own, "train.normalization=backbone"]).runs
    assert run.train.normalization == run.backbone.normalization == normalization
    (run,) = plan([*ONE, *own, "train.normalization=none"]).runs
    assert run.train.normalization == "none"


@pytest.mark.parametrize("normalization", ["timm", "half"])
def test_the_plan_tells_the_normalization(normalization, tmp_path):
    options = [*TINY, f"backbone.normalization={normalization}", "train.normalization=backbone"]
    done = quickly("sweep", *ONE, *options, "--dry-run", cwd=tmp_path)
    assert "normalization half" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        ["backbone.label=mine", *TINY],
        ["backbone.label=pocket", *TINY],
        ["backbone=pocket", "backbone.image_size=16"],
        ["backbone=pocket", "backbone.weights=random"],
    ],
)
@pytest.mark.sampled(1)
def test_a_file_alone_is_evaluated_with_any_label_and_options(changes, tmp_path):
    done = quickly("sweep", *ONE, *changes, "--store", tmp_path / "store", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "store")
    file = next((tmp_path / "store").glob("*/*.petl"), None) or next((tmp_path / "store").glob("*/adapter*"))
    done = quickly("eval", file, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = json_lines(done.stdout)
    assert result["acc"] == row["acc"]
    done = quickly("store", "check", "--store", tmp_path / "store", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
