"""What only the mixture of frequencies has: its bands, the blocks it is in, the tokens it leaves alone."""

from dataclasses import replace

import pytest
import torch

from petl_bench.adapters.earth import Earth, low_frequencies
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble
from petl_bench.types import BackboneSpec
from tests import tiny
from tests.agreeing import check
from tests.test_methods import some_images

DEEP = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | {"depth": 4})


def modules(backbone=tiny.BACKBONE, **settings):
    network = assemble(tiny.model_spec("earth", backbone=backbone, **settings)).network
    return [module for module in network.modules() if isinstance(module, Earth)]


@pytest.mark.parametrize(
    "settings", [{"frequency": 0}, {"bias": True}, {"where": "last"}, {"bias": True, "frequency": 0}]
)
def test_every_option_agrees_with_the_plain_reference(settings):
    check("earth", **settings)


@pytest.mark.parametrize("settings", [{"where": "first"}, {"where": "last", "bias": True}])
def test_some_blocks_mix_and_others_do_not(settings, monkeypatch):
    monkeypatch.setitem(tiny.FAMILIES, "VisionTransformer", DEEP)
    adapted = check("earth", frequency=1, **settings)
    mixing = [name for name in adapted.adapter.matrices if name.endswith("router")]
    assert mixing == ["0.router" if settings["where"] == "first" else "2.router"]  # the last of 4 has none


def test_the_last_block_has_an_adapter_where_its_patches_are_read():
    average = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | {"global_pool": "avg"})
    assert [len(modules(backbone)) for backbone in (tiny.BACKBONE, average)] == [1, 2]


@pytest.mark.parametrize(("cutoff", "rows"), [(0.3, 2), (0.2, 1), (0.01, 1)])
def test_the_box_on_14_by_14_patches(cutoff, rows):
    # int(14 * cutoff // 2), at least 1 (repository VisionXLab/Earth-Adapter)
    backbone = BackboneSpec("vit_tiny_patch16_224", "random", 224, tiny.BACKBONE.options | {"patch_size": 16})
    assert modules(backbone, cutoff=cutoff)[0].cutoff == rows


def test_low_frequencies_are_those_of_the_box():
    rows = torch.arange(8.0)[:, None].expand(8, 8)

    def wave(frequency):
        return torch.cos(2 * torch.pi * frequency * rows / 8)[None, :, :, None]

    # The box of c=2 has frequencies -2 to 1: of a wave of 2 the half that is -2.
    for frequency, left in ((0, 1.0), (1, 1.0), (2, 0.5), (3, 0.0)):
        found = low_frequencies(wave(frequency), 2)
        torch.testing.assert_close(found, left * wave(frequency), rtol=0, atol=1e-6)


def test_low_frequencies_of_bfloat16_are_made_in_float32():
    patches = torch.randn(2, 8, 8, 3).bfloat16()
    found = low_frequencies(patches, 2)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, low_frequencies(patches.float(), 2).bfloat16())


def test_class_token_and_registers_pass_by():
    backbone = replace(tiny.BACKBONE, options=tiny.BACKBONE.options | {"reg_tokens": 2})
    x, d = torch.randn(2, 3 + 16, 48), torch.randn(2, 3 + 16, 48)
    with torch.no_grad():
        changed = modules(backbone)[0](x, x, d) != d
    assert not changed[:, :3].any()
    assert changed[:, 3:].any(-1).all()


def test_from_a_zero_up_training_starts_at_the_frozen_network():
    images = some_images()
    adapted = assemble(tiny.model_spec("earth", bits=32, up_start="zero"))
    with torch.no_grad():
        expected = families.build(tiny.BACKBONE)[0].eval()(images)
        found = adapted.features(lambda network: [network.eval()(images)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_trained_scale_starts_at_the_scale():
    assert [module.scale.item() for module in modules(scale=0.25)] == [0.25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": "middle"}, "where must be one of first, last"),
        ({"up_start": "ones"}, "up_start must be one of linear, zero"),
        ({"frequency": -1}, "frequency must be a number of blocks"),
        ({"cutoff": 0.0}, "cutoff=0.0 leaves one band empty"),
        ({"cutoff": 1.0}, "cutoff=1.0 leaves one band empty"),
    ],
)
def test_what_makes_no_mixture_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        modules(**settings)


@pytest.mark.parametrize("family", ["SwinTransformer", "ConvNeXt"])
def test_backbones_with_several_grids_are_refused(family):
    with pytest.raises(UserError, match=r"one grid of patches.*choose another adapter or backbone"):
        modules(tiny.FAMILIES[family])
