"""Scale and shift after every operation: where, from what start, and merged into what was there."""

import pytest
import torch
from torch import nn

from petl_bench import adapters
from petl_bench.adapters import Shape
from petl_bench.adapters.ssf import ScaleShift
from petl_bench.backbones import families
from tests import tiny


def attached(family, seed=0):
    network, sites = families.build(tiny.FAMILIES[family])
    return network, adapters.attach("ssf", {}, sites, Shape(0, 1.0, False, seed))


def places(network):
    return {name for name, module in network.named_modules() if isinstance(module, ScaleShift)}


@pytest.mark.parametrize(
    ("family", "expected"),
    [  # repository dongzelian/SSF, where these families have places that ViT does not have
        ("SwinTransformer", {"patch_embed.proj", "patch_embed.norm", "layers.1.downsample.norm", "norm"}),
        ("ConvNeXt", {"stem.0", "stem.1", "stages.1.downsample.0", "stages.1.downsample.1", "head.norm"}),
    ],
)
def test_it_stands_where_the_source_has_it(family, expected):
    found = places(attached(family)[0])
    assert expected <= found
    assert not any("reduction" in name for name in found)
    blocks = {name.rpartition(".")[2] for name in found if ".blocks." in name}
    own = {"norm", "conv_dw"} if family == "ConvNeXt" else {"norm1", "norm2", "qkv", "proj"}
    assert blocks == own | {"fc1", "fc2"}


def test_it_starts_around_the_identity_at_random():
    floats = attached("VisionTransformer")[1].floats
    for group, mean in (("scales", 1.0), ("shifts", 0.0)):  # N(1, .02) and N(0, .02), same place
        values = torch.cat([p.detach() for p in floats[group]])
        assert values.mean().item() == pytest.approx(mean, abs=4 * 0.02 / len(values) ** 0.5)
        assert values.std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(floats["scales"][0] - 1, floats["shifts"][0])
    again, other = (attached("VisionTransformer", seed)[1].floats["shifts"][0] for seed in (0, 1))
    assert torch.equal(again, floats["shifts"][0])
    assert not torch.equal(other, again)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_merged_nothing_of_it_is_left(family):
    network, _ = attached(family)
    before = len(places(network))
    adapters.merge(network)
    assert before > 0
    assert not places(network)
    # A shift leaves a bias where there was none.
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.LayerNorm | nn.Conv2d))
