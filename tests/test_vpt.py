"""What only prompts have: where they stand, their start, the backbones they are refused on."""

from dataclasses import replace

import pytest
import torch

from petl_bench import adapters
from petl_bench.adapters import Shape
from petl_bench.backbones import families
from petl_bench.backbones.sites import Sites
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny
from tests.test_methods import some_images, stirred

both = pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])


def backbone(**options):
    return replace(tiny.BACKBONE, options=tiny.BACKBONE.options | options)


@both
@pytest.mark.parametrize(("registers", "place"), [(0, 1), (2, 3)])
def test_prompts_stand_after_the_class_token_and_registers(name, registers, place):
    network, sites = families.build(backbone(depth=3, reg_tokens=registers))
    tables = adapters.attach(name, {}, sites, Shape(5, 1.0, False)).matrices
    seen = []
    for block in network.blocks:
        inner = getattr(block, "block", block)
        inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        images = some_images(2)
        before = network.patch_embed(images)
        network.eval()(images)
    assert [x.shape[1] for x in seen] == [place + 5 + 16] * 3
    for number, x in enumerate(seen):
        stands = [torch.equal(x[0, place : place + 5], table.weight) for table in tables.values()]
        assert stands == [number == other for other in range(len(tables))]
    assert len(tables) == (3 if name == "vpt_deep" else 1)
    positions = network.pos_embed[:, -16:]
    torch.testing.assert_close(seen[0][:, place + 5 :], before + positions, rtol=0, atol=1e-6)


@both
def test_they_start_within_the_bound_of_patches_and_width(name):
    # Repository KMnP/vpt: sqrt(6 / (3 p^2 + D)); here patches of 8 pixels and 48 channels.
    _, sites = families.build(tiny.BACKBONE)
    tables = adapters.attach(name, {}, sites, Shape(50, 1.0, True)).matrices.values()
    bound = (6 / (3 * 8 * 8 + 48)) ** 0.5
    for table in tables:
        assert 0.98 * bound < table.weight.abs().max() <= bound
        assert table.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)  # of a uniform


@both
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_head_reads_the_tokens_it_knows(name, pool, monkeypatch):
    # The first token is right whether or not the last block spares the others.
    found = []
    for spared in (True, False):
        with monkeypatch.context() as patch:
            if not spared:
                patch.setattr(Sites, "drop_unread", lambda self: None)
            adapted = assemble(tiny.model_spec(name, bits=32, backbone=backbone(global_pool=pool)), seed=3)
        adapted.prepare()
        stirred(adapted)
        widths = []
        adapted.network.norm.register_forward_pre_hook(
            lambda _, x, widths=widths: widths.append(x[0].shape[1])
        )
        with torch.no_grad():
            found.append(adapted.network.eval()(some_images()))
        assert widths == [17]  # class token and 4 x 4 patches
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


@both
def test_dropout_is_drawn_for_every_image(name):
    adapted = assemble(tiny.model_spec(name, bits=32, dropout=0.5), seed=3)
    adapted.prepare()
    stirred(adapted)
    images = some_images(1).expand(4, -1, -1, -1)
    with torch.no_grad():
        logits = adapted.network.train()(images)
    assert len({tuple(row) for row in logits.tolist()}) == 4


@both
@pytest.mark.parametrize("family", ["SwinTransformer", "ConvNeXt"])
def test_backbones_without_a_sequence_are_refused(name, family):
    with pytest.raises(UserError, match="rows and columns: choose another adapter or backbone"):
        assemble(tiny.model_spec(name, backbone=tiny.FAMILIES[family]))


@both
def test_no_prompts_are_refused(name):
    with pytest.raises(UserError, match=r"hidden=0.*at least 1 prompt"):
        assemble(tiny.model_spec(name, hidden=0))
