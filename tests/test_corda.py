"""What CorDA alone has: a start by the covariance of its inputs, which is stored."""

import pytest
import torch

from petl_bench.adapters.corda import Covariance, oriented
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.packing import dump, load
from tests import tiny
from tests.agreeing import check_initial
from tests.reference.plain import Plain
from tests.test_methods import some_images, stirred


class Images:
    """A calibration over two batches."""

    def __init__(self, network):
        self.network = network

    @torch.no_grad()
    def observe(self):
        for batch in some_images(6).split(4):
            self.network.eval()(batch)


def calibrated(**settings):
    spec = tiny.model_spec("corda", **settings)
    adapted = assemble(spec, seed=3)
    adapted.adapter.attached.calibrate(Images(adapted.network))
    return spec, adapted


class Inputs(Plain):
    """What arrives at each linear of the frozen network."""

    def __init__(self, state):
        super().__init__(state, {}, 3, {}, 1.0, 0, None)
        self.seen = {}

    def linear(self, name, x):
        self.seen[name] = x
        return super().linear(name, x)


def covariance(x):
    """Return the regularized mean of X^T X over images, X divided by its largest magnitude (iboing/CorDA)."""
    images = [image / image.abs().max() for image in x.double()]
    mean = sum(image.T @ image for image in images) / len(images)
    return mean + 0.01 * mean.diagonal().mean() * torch.eye(len(mean), dtype=torch.float64)


@pytest.mark.parametrize(("mode", "chosen"), [("ipa", slice(3)), ("kpa", slice(-3, None))])
@pytest.mark.parametrize(("site", "role"), [("attn.qkv", "qkv"), ("mlp.fc2", "fc2")])
def test_it_starts_at_the_components_seen_through_the_inputs(mode, chosen, site, role):
    _, adapted = calibrated(bits=32, hidden=3, mode=mode)
    state = families.build(tiny.BACKBONE)[0].state_dict()
    plain = Inputs(state)
    plain.features(some_images(6))
    c = covariance(plain.seen[f"blocks.0.{site}"])
    weight = state[f"blocks.0.{site}.weight"].double()
    u, s, vt = torch.linalg.svd(weight @ c, full_matrices=False)
    expected = (u[:, chosen] * s[chosen]) @ vt[chosen] @ torch.linalg.inv(c)
    attached = adapted.adapter.attached
    down, up = (attached.matrices[f"0.{role}.{part}"].weight for part in ("down", "up"))
    # C is summed in float32; what is small in W C is great in W C C^-1.
    torch.testing.assert_close(
        up @ down, expected.float(), rtol=1e-2, atol=1e-3 * expected.abs().max().item()
    )
    torch.testing.assert_close(up.norm(), down.norm())
    for part in ("down", "up"):
        start = attached.fixed[f"0.{role}.{part}.start"].weight
        assert torch.equal(start, attached.matrices[f"0.{role}.{part}"].weight)


def test_all_components_are_the_weight():
    # W = U S V^T C^-1, whatever C.
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(5, 7, generator=generator), torch.randn(4, 3, 7, generator=generator)
    seen = Covariance()
    seen(torch.nn.Identity(), (x,))
    for mode in ("ipa", "kpa"):
        down, up = oriented(weight, seen.damped(), 5, mode)
        torch.testing.assert_close(up @ down, weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.damped(), covariance(x), rtol=1e-5, atol=1e-6)


class AsPeft(Covariance):
    """The covariance of peft and iboing/CorDA, which divide by the magnitude of the largest entry."""

    def __call__(self, linear, inputs):
        x = inputs[0].flatten(1, -2)
        rows = (x / x.amax((1, 2), keepdim=True).abs()).flatten(0, 1)
        self.total = self.total + rows.t() @ rows
        self.images += len(x)


def starts_of_peft(network, names, method):
    """Return the product of the initial pair of each linear; peft takes the images one by one."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    settings = {"r": 3, "lora_alpha": 3, "target_modules": names, "init_lora_weights": "corda"}
    config = LoraConfig(**settings, corda_config=CordaConfig(corda_method=method))
    preprocess_corda(network, config, run_model=lambda: [network(image[None]) for image in some_images(6)])
    found = get_peft_model(network, config).base_model.model
    pairs = {name: found.get_submodule(name) for name in names}
    return {name: p.lora_B["default"].weight @ p.lora_A["default"].weight for name, p in pairs.items()}


@torch.no_grad()
@pytest.mark.parametrize(("mode", "method"), [("ipa", "ipm"), ("kpa", "kpm")])
def test_it_starts_as_in_peft_but_for_what_inputs_are_divided_by(mode, method):
    network = families.build(tiny.BACKBONE)[0].eval()
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("blocks.")
    ]
    seen = {kind: {name: kind() for name in names} for kind in (Covariance, AsPeft)}
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(covariance)
        for covariances in seen.values()
        for name, covariance in covariances.items()
    ]
    network(some_images(6))
    for hook in hooks:
        hook.remove()
    weights = {name: network.get_submodule(name).weight.clone() for name in names}
    for name, expected in starts_of_peft(network, names, method).items():
        for kind, covariances in seen.items():
            down, up = oriented(weights[name], covariances[name].damped(), 3, mode)
            error = (up @ down - expected).norm() / expected.norm()
            # peft computes in float32. Inputs of fc2 come from GELU: their largest magnitudes are positive.
            if kind is AsPeft or name.endswith("fc2"):
                assert error < 5e-3, (name, kind)
            elif name.endswith(("qkv", "fc1")):
                assert error > 5e-2, (name, kind)


@pytest.mark.parametrize("bits", [1, 3, 32])
def test_a_calibrated_model_starts_at_the_frozen_one(bits):
    spec, adapted = calibrated(bits=bits, scale=100.0)
    adapted.prepare()
    check_initial(spec, adapted)


@pytest.mark.parametrize("bits", [1, 32])
def test_a_file_needs_no_images(bits):
    spec, adapted = calibrated(bits=bits)
    adapted.prepare()
    starts = {name: adapted.adapter.latents[name].clone() for name in adapted.adapter.attached.fixed}
    stirred(adapted)
    for name, before in starts.items():
        assert torch.equal(adapted.adapter.latents[name], before), "starts are not trained"
    file = load(dump(adapted.file({})), "here")
    assert len(file.adapter) == 2 * len(adapted.adapter.attached.matrices)
    with torch.no_grad():
        expected = adapted.network.eval()(some_images())
        found = restore(spec, file, "here").eval()(some_images())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_calibration_leaves_no_hooks():
    _, adapted = calibrated()
    assert not any(module._forward_pre_hooks for module in adapted.network.modules())


def test_another_mode_and_too_great_a_rank_are_refused():
    with pytest.raises(UserError, match="mode must be one of ipa, kpa, not 'both'"):
        assemble(tiny.model_spec("corda", mode="both"))
    with pytest.raises(UserError, match=r"hidden is too large: 0\.qkv .*49 .*has 48"):
        assemble(tiny.model_spec("corda", hidden=49))
