"""Ways to fewer bytes: blocks that share matrices, and training that minds the coded length."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from petl_bench import initialization
from petl_bench.adapters.lowrank import grouped
from petl_bench.backbones.families import build
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.packing.predict import RATES
from petl_bench.quantizers import FakeQuantize
from petl_bench.train.rate_regularizer import RateRegularizer
from tests import tiny
from tests.conftest import error_of, json_lines, pick, quickly
from tests.reference.adapted import Reference
from tests.reference.predict import code_length
from tests.reference.training import cross_entropy
from tests.test_protocols import made

ROLES = {"adaptformer": ["down", "up"], "lora": ["q.down", "q.up", "v.down", "v.up"]}


@pytest.mark.parametrize("adapter", list(ROLES))
@pytest.mark.parametrize("bits", [1, 32])
def test_shared_matrices_are_those_of_the_reference_with_one_tensor_in_all_blocks(adapter, bits):
    adapted = tiny.quantized_model(tiny.model_spec(adapter, bits=bits, scale=2.0, share=0), seed=3)
    assert list(adapted.adapter.matrices) == [f"0.{role}" for role in ROLES[adapter]]
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in tiny.values(adapted).values():
            if not parameter.any():  # `up` at 32 bits starts at zero
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    latent = {name: value.clone().requires_grad_() for name, value in tiny.values(adapted).items()}
    network, sites = build(tiny.BACKBONE)
    blocks = {f"{i}.{role}": latent[f"0.{role}"] for i in range(len(sites.blocks)) for role in ROLES[adapter]}
    reference = Reference(
        network.state_dict(),
        blocks | latent,
        tiny.BACKBONE.options["num_heads"],
        adapter,
        "linear",
        bits,
        2.0,
    )
    data = tiny.split(8, seed=5)
    images, labels = torch.from_numpy(data.images).float() / 255, torch.from_numpy(data.labels)
    found, expected = adapted.network(images), reference.logits(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    F.cross_entropy(found, labels).backward()
    cross_entropy(expected, labels).backward()
    for name, gradient in tiny.gradients(adapted).items():
        twin = latent[name]
        assert (gradient - twin.grad).norm() / twin.grad.norm() <= 1e-5, name


@pytest.mark.parametrize("family", tiny.WITH_LINEARS)
@pytest.mark.parametrize("adapter", list(ROLES))
def test_shared_matrices_pack_and_reload_in_every_family(family, adapter):
    spec = tiny.model_spec(adapter, backbone=tiny.FAMILIES[family], share=0)
    adapted = tiny.quantized_model(spec, seed=1)
    _, sites = build(tiny.FAMILIES[family])
    widths = len({block.dim for block in sites.blocks})
    alone = assemble(tiny.model_spec(adapter, backbone=tiny.FAMILIES[family]))
    assert len(adapted.adapter.matrices) < len(alone.adapter.matrices) or widths == len(sites.blocks)
    images = torch.from_numpy(tiny.split(4).images).float() / 255
    again = restore(spec, adapted.file({}, code=True), "here")
    torch.testing.assert_close(again.eval()(images), adapted.network.eval()(images), rtol=0, atol=1e-5)


class Block:
    def __init__(self, dim):
        self.dim = dim


@pytest.mark.parametrize(
    ("dims", "share", "expected"),
    [
        ([8] * 5, 1, [0, 1, 2, 3, 4]),
        ([8] * 5, 2, [0, 0, 1, 1, 2]),
        ([8] * 5, 0, [0, 0, 0, 0, 0]),
        ([8, 8, 16, 16, 16], 2, [0, 0, 1, 1, 2]),
        ([8, 8, 16, 16, 16], 0, [0, 0, 1, 1, 1]),
        ([8, 16, 16, 8], 3, [0, 1, 1, 2]),
        ([], 1, []),
    ],
)
def test_groups_of_neighbours_of_one_width(dims, share, expected):
    assert [number for number, _ in grouped([Block(dim) for dim in dims], share)] == expected


def test_a_negative_share_is_refused():
    with pytest.raises(UserError, match="share"):
        assemble(tiny.model_spec("lora", share=-1))


@pytest.mark.parametrize("bits", [1, 3])
def test_a_step_adds_the_log_odds_of_the_model(bits):
    """Once refreshed: rate * weight * log-odds of the upper bit, as the plain-Python model has them."""
    shape, seed = (6, 40), 5
    generator = torch.Generator().manual_seed(0)
    start = torch.from_numpy(initialization.linear(seed, "adapter.0.down", shape))
    latent = torch.nn.Parameter(start + 0.05 * torch.randn(shape, generator=generator))
    quantizer = FakeQuantize("l1_median", bits)
    term = RateRegularizer({"0.down": (latent, quantizer)}, seed, weight=0.5)
    before = latent.detach().clone()
    term.step(0.1)
    assert torch.equal(latent, before)
    term.refresh()
    term.step(0.1)
    words = initialization.words(seed, "adapter.0.down", shape).astype(int) // 2**16 - 2**15
    codes = quantizer.encode(before)[0].numpy()
    _, chances = code_length(codes.T.tolist(), bits, RATES[len(RATES) // 2], words.T.tolist())
    odds = np.vectorize(lambda p: math.log(p / (1 - p)))(np.array(chances).T)
    np.testing.assert_allclose((latent.detach() - before).numpy(), 0.05 * odds, rtol=1e-3, atol=1e-6)


def test_a_rate_weight_makes_the_coded_file_smaller(tmp_path):
    tree = made(tmp_path, {"train": 96, "val": 32, "test": 16})
    changes = {"adapter": "linear,adaptformer", "bits": "1,32", "hidden": 16, "rate_weight": "0,0.5"}
    changes |= {"protocol": "fixed", "scale": 1, "train.epochs": 6, "train.warmup_epochs": 1}
    done = quickly("sweep", "--store", tmp_path / "store", *tree.settings(**changes))
    assert done.returncode == 0, done.stderr
    tmp_path /= "store"
    plain, short = (pick(tmp_path, bits=1, rate_weight=weight) for weight in (0.0, 0.5))
    assert short["bytes_adapter"] < 0.95 * plain["bytes_adapter"]
    assert short["bytes_adapter_raw"] == plain["bytes_adapter_raw"]
    # What has no codes has no use for the weight: one run each of linear and of 32 bits.
    assert pick(tmp_path, adapter="linear")["rate_weight"] == 0
    assert pick(tmp_path, adapter="adaptformer", bits=32)["rate_weight"] == 0
    report = quickly("report", "--store", tmp_path).stdout
    assert "rate_weight" in report


def test_the_plan_tells_ways_to_fewer_bytes_apart(tmp_path):
    overrides = ["task=digits", "adapter=adaptformer", "bits=1", "rate_weight=0,0.1", "adapter.share=1,0"]
    text = quickly("sweep", "--store", tmp_path, "--dry-run", *overrides).stdout
    assert {"settings", "rate_weight"} <= set(text.replace("┃", " ").split())
    assert text.count("adaptformer") == 4  # a line each
    done = quickly("sweep", "--store", tmp_path, "--dry-run", "--json", *overrides)
    found = {(cell["settings"], cell["rate_weight"]) for cell in json_lines(done.stdout)}
    assert found == {("", 0.0), ("", 0.1), ("share=0", 0.0), ("share=0", 0.1)}


def test_a_rate_weight_without_epochs_to_act_in_is_refused():
    refused = quickly("sweep", "--dry-run", "train.epochs=1", "rate_weight=0.1")  # default warms up for 1
    assert "warm-up" in error_of(refused)


@pytest.mark.parametrize("value", ["-1", "inf", "much", "true"])
def test_a_rate_weight_out_of_range_is_refused(value):
    assert "rate_weight" in error_of(quickly("sweep", "--dry-run", f"rate_weight={value}"))


def test_rows_and_tables_name_settings_that_are_not_the_defaults(tmp_path):
    tree = made(tmp_path, {"train": 24, "val": 8, "test": 16})
    changes = {"protocol": "fixed", "scale": 1, "train.epochs": 1, "adapter.share": "1,0"}
    done = quickly("sweep", "--store", tmp_path / "store", *tree.settings(**changes))
    assert done.returncode == 0, done.stderr
    tmp_path /= "store"
    assert (
        pick(tmp_path, settings="share=0")["bytes_adapter_raw"] * 4
        == pick(tmp_path, settings="")["bytes_adapter_raw"]
    )
    lines = quickly("report", "--store", tmp_path, "--format", "markdown").stdout.splitlines()
    assert sum("share=0" in line for line in lines) == 3  # a line of each table
    run = pick(tmp_path, settings="share=0")["run_id"]
    assert "share=0" in quickly("inspect", tmp_path / run).stdout
