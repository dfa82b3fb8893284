"""What only bottleneck adapters have: their options, starts and refusals."""

import pytest
import torch

from petl_bench import adapters
from petl_bench.adapters import ADAPTERS, Shape
from petl_bench.backbones import families
from petl_bench.backbones.sites import FirstToken
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny
from tests.agreeing import check
from tests.test_methods import model, some_images, stirred

DIM = 48  # of tests.tiny.BACKBONE


def parts(name, hidden=32, quantized=True, scale=1.0, **settings):
    network, sites = families.build(tiny.BACKBONE)
    return network, adapters.attach(name, settings, sites, Shape(hidden, scale, quantized))


@pytest.mark.parametrize(
    "settings",
    [
        {"sites": "attention"},
        {"sites": "both", "bias": True},
        {"sites": "both", "placement": "parallel", "activation": "relu"},
        {"sites": "both", "placement": "normed", "activation": "tanh", "learned_scale": "scalar"},
        {"sites": "both", "placement": "after", "norm": "own", "bias": True},
        {"norms": True, "activation": "swish"},
        {"learned_scale": "channel", "activation": "quick_gelu"},
        {"sites": "both", "gate": "large"},
        {"sites": "both", "gate": "middle_x"},
        {"sites": "both", "gate": "middle_y", "bias": True},
        {"sites": "both", "gate": "small"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_option_agrees_with_the_plain_reference(settings):
    check("bottleneck", **settings)


def test_adaptformer_is_a_bottleneck_without_bias_in_parallel():
    _, found = model("bottleneck", placement="parallel", activation="relu")
    _, twin = model("adaptformer")
    stirred(found)
    with torch.no_grad():
        for mine, other in zip(found.trainable, twin.trainable, strict=True):
            other.copy_(mine)
        torch.testing.assert_close(
            found.network.eval()(some_images()), twin.network.eval()(some_images()), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("gate", ["large", "middle_x", "middle_y", "small"])
def test_every_gate_starts_open(gate):
    # A sigmoid alone would halve the frozen branch; 2 sigmoid(0) = 1 (docs/methods/bottleneck.md).
    images = some_images()
    network, _ = parts("bottleneck", quantized=False, sites="both", gate=gate)
    with torch.no_grad():
        frozen = families.build(tiny.BACKBONE)[0].eval()(images)
        torch.testing.assert_close(network.eval()(images), frozen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["none", "large", "small"])
def test_tokens_nobody_reads_are_left_out_where_no_gate_reads_them(gate):
    network, _ = parts("bottleneck", gate=gate)
    assert any(isinstance(module, FirstToken) for module in network.modules()) == (gate != "small")


@pytest.mark.parametrize("name", ["houlsby", "adapter_plus"])
def test_both_matrices_start_from_a_normal_of_std_a_hundredth(name):
    # Repository visinf/adapter_plus: a normal of std 0.01 truncated at 0.02, biases 0, factors 1.
    # The truncation leaves 0.8796 of the std.
    _, attached = parts(name)
    for role in ("down", "up"):
        values = [m.weight.flatten() for key, m in attached.matrices.items() if key.endswith(role)]
        assert torch.cat(values).abs().max() <= 0.02
        assert torch.cat(values).std().item() == pytest.approx(0.8796e-2, rel=0.05)
    assert not any(bias.any() for bias in attached.floats["biases"])
    assert all((factor == 1).all() for factor in attached.floats.get("scales", []))


def test_pfeiffer_starts_both_matrices_as_glorot_and_bengio_do():
    _, attached = parts("pfeiffer")
    bound = (6 / (DIM + 32)) ** 0.5
    for matrix in attached.matrices.values():
        assert 0.9 * bound < matrix.weight.abs().max() <= bound


def test_a_learned_scale_starts_at_the_scale():
    _, attached = parts("bottleneck", scale=0.1, learned_scale="channel")
    assert all(torch.equal(factor, torch.full((DIM,), 0.1)) for factor in attached.floats["scales"])


def test_own_drop_path_leaves_out_the_adapter_of_whole_images():
    # Without the backbone's own dropout a pass in training differs from the frozen one by the adapter alone.
    _, adapted = model("adapter_plus", drop_path=0.5)
    stirred(adapted)
    torch.manual_seed(0)
    images = some_images(1).expand(64, -1, -1, -1)
    with torch.no_grad():
        logits = adapted.network.train()(images)
    # Two blocks, dropped or not: four outputs.
    assert len({tuple(row) for row in (logits * 1e4).round().tolist()}) == 4


@pytest.mark.parametrize("name", ["bottleneck", "houlsby"])
def test_the_drop_path_of_the_defaults(name):
    # Repository visinf/adapter_plus: drop path 0.1 of the adapter and no dropout. Elsewhere dropout is 0.1.
    config = ADAPTERS.get(name).config()
    assert (config.drop_path, config.dropout) == {"bottleneck": (0, 0.1), "houlsby": (0.1, 0)}[name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": "mpl"}, "sites must be one of mlp, attention, both"),
        ({"placement": "before"}, "placement must be one of"),
        ({"activation": "silu"}, "activation must be one of"),
        ({"norm": "in"}, "norm must be one of"),
        ({"learned_scale": "token"}, "learned_scale must be one of"),
        ({"down_start": "zero"}, "down_start must be one of linear, xavier, normal"),
        ({"up_start": "ones"}, "up_start must be one of"),
        ({"gate": "huge"}, "gate must be one of"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1"),
        ({"dropout": 1.5}, "1.5"),
        ({"deviation": 0.0}, "deviation must be above 0"),
    ],
)
def test_what_makes_no_adapter_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        parts("bottleneck", **settings)


def test_convnext_has_one_branch():
    backbone = tiny.FAMILIES["ConvNeXt"]
    found = assemble(tiny.model_spec("houlsby", backbone=backbone)).adapter.matrices
    blocks = sum(backbone.options["depths"])
    assert list(found) == [f"{i}.mlp.{part}" for i in range(blocks) for part in ("down", "up")]
    with pytest.raises(UserError, match=r"needs a branch 'attention'.*choose another adapter or backbone"):
        assemble(tiny.model_spec("bottleneck", backbone=backbone, sites="attention"))
