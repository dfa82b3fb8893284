"""Methods on one linear, against the modules of Hugging Face peft with the same weights, to 1e-5."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from petl_bench.adapters import Attached
from petl_bench.adapters.c3a import CirculantDelta, circulant
from petl_bench.adapters.decomposed import Start
from petl_bench.adapters.delta import ComputedPair, DeltaLinear, LowRank
from petl_bench.adapters.dora import Directed
from petl_bench.adapters.fourierft import TRANSFORMS, TransformedDelta
from petl_bench.adapters.hira import MultipliedDelta
from petl_bench.adapters.ia3 import Multiplied, MultipliedInputs
from petl_bench.adapters.lora_xs import BetweenBases, Combination
from petl_bench.adapters.outputs import ChangedOutputs
from petl_bench.adapters.road import Rotated
from petl_bench.adapters.rows import Stack
from petl_bench.adapters.uni_lora import Chosen
from petl_bench.adapters.vb_lora import Composed, Pieces
from petl_bench.adapters.vera import ScaledRandom, frozen
from petl_bench.initialization import normal

INPUTS, OUTPUTS, RANK = 64, 128, 4
STEPS = torch.Generator().manual_seed(0)


def some(*size):
    return torch.randn(size, generator=STEPS) * 0.3


def rows(values):
    """The module of trained rows with these values."""
    stack, attached = Stack(), Attached()
    found = stack.rows(*values.shape)
    stack.declare(attached, "values", normal(1))
    with torch.no_grad():
        found.matrix.weight.copy_(values)
    return found


def linear(weight):
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        found.weight.copy_(weight)
    return found


@pytest.fixture(scope="module")
def peft():
    """Hugging Face peft, which takes seconds to import."""
    return pytest.importorskip("peft", reason="peft is not installed")


@pytest.fixture
def base():
    found = nn.Linear(INPUTS, OUTPUTS)
    with torch.no_grad():
        found.weight.copy_(some(OUTPUTS, INPUTS))
        found.bias.copy_(some(OUTPUTS))
    return found.requires_grad_(False)


def twin(peft, base, config):
    """The layer of peft around a copy of the linear."""
    copy = nn.Linear(INPUTS, OUTPUTS)
    copy.load_state_dict(base.state_dict())
    return peft.get_peft_model(nn.Sequential(OrderedDict(site=copy)), config).base_model.model.site


def put(parameter, values):
    with torch.no_grad():
        parameter.copy_(values)


def agree(module, layer):
    """Both give the same outputs, also once ours is merged."""
    x = some(2, 5, INPUTS)
    with torch.no_grad():
        expected = layer.eval()(x)
        torch.testing.assert_close(module.eval()(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(module.merged()(x), expected, rtol=1e-5, atol=1e-5)


def pair():
    return some(RANK, INPUTS), some(OUTPUTS, RANK)


def test_lora(peft, base):
    down, up = pair()
    layer = twin(peft, base, peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["site"]))
    put(layer.lora_A["default"].weight, down)
    put(layer.lora_B["default"].weight, up)
    agree(DeltaLinear(base, LowRank(linear(down), linear(up), 2.0, 0.0)), layer)


def test_vera(peft, base):
    a, b = frozen(0, INPUTS, OUTPUTS, RANK, RANK)
    d, outer = some(1, RANK), some(1, OUTPUTS)
    layer = twin(peft, base, peft.VeraConfig(r=RANK, target_modules=["site"]))
    put(layer.vera_A["default"], a)
    put(layer.vera_B["default"], b)
    put(layer.vera_lambda_d["default"], d[0])
    put(layer.vera_lambda_b["default"], outer[0])
    agree(DeltaLinear(base, ScaledRandom(rows(d), rows(outer), a, b, 1.0, 0.0)), layer)


def test_pvera_in_evaluation(peft, base):
    a, b = frozen(0, INPUTS, OUTPUTS, 2 * RANK, RANK)
    d, outer = some(1, 2 * RANK), some(1, OUTPUTS)
    layer = twin(peft, base, peft.PveraConfig(r=RANK, target_modules=["site"]))
    put(layer.pvera_A["default"], a)
    put(layer.pvera_B["default"], b)
    put(layer.pvera_lambda_d["default"], d[0])
    put(layer.pvera_lambda_b["default"], outer[0])
    agree(DeltaLinear(base, ScaledRandom(rows(d), rows(outer), a, b, 1.0, 0.0)), layer)


def test_fourierft(peft, base):
    layer = twin(peft, base, peft.FourierFTConfig(n_frequency=50, scaling=150.0, target_modules=["site"]))
    values = some(1, 50)
    put(layer.fourierft_spectrum["default"], values[0])
    places = layer.indices["default"]
    positions = places[0] * INPUTS + places[1]
    scale = 150.0 / (INPUTS * OUTPUTS) ** 0.5  # of the orthonormal transform
    size = (OUTPUTS, INPUTS)
    agree(
        DeltaLinear(base, TransformedDelta(rows(values), positions, size, TRANSFORMS["fourier"], scale)),
        layer,
    )


def test_waveft(peft, base):
    layer = twin(peft, base, peft.WaveFTConfig(n_frequency=50, scaling=2.0, target_modules=["site"]))
    values = some(1, 50)
    put(layer.waveft_spectrum["default"], values[0])
    row, column = layer.waveft_indices["default"]
    # peft has differences of rows in the upper right quarter, and those of columns in the lower left one.
    high, right = row >= OUTPUTS // 2, column >= INPUTS // 2
    row, column = row % (OUTPUTS // 2) + OUTPUTS // 2 * right, column % (INPUTS // 2) + INPUTS // 2 * high
    positions = row * INPUTS + column
    agree(
        DeltaLinear(
            base, TransformedDelta(rows(values), positions, (OUTPUTS, INPUTS), TRANSFORMS["haar"], 2.0)
        ),
        layer,
    )


@pytest.mark.parametrize("block", [8, 64])
def test_c3a(peft, base, block):
    layer = twin(peft, base, peft.C3AConfig(block_size=block, target_modules=["site"]))
    kernels = some(OUTPUTS // block * INPUTS // block, block) * 8
    put(layer.c3a_kernel["default"], kernels.view(OUTPUTS // block, INPUTS // block, block))
    scale = 1 / INPUTS**0.5  # peft divides by the inputs, CirculantDelta by their square root
    agree(DeltaLinear(base, CirculantDelta(rows(kernels), (OUTPUTS, INPUTS), circulant(block), scale)), layer)


def test_hira(peft, base):
    down, up = pair()
    layer = twin(peft, base, peft.HiraConfig(r=RANK, target_modules=["site"]))
    put(layer.hira_A["default"], down)
    put(layer.hira_B["default"], up)
    agree(DeltaLinear(base, MultipliedDelta(linear(down), linear(up), Start(base.weight), 1.0)), layer)


def test_dora(peft, base):
    down, up = pair()
    config = peft.LoraConfig(r=RANK, lora_alpha=3 * RANK, use_dora=True, target_modules=["site"])
    layer = twin(peft, base, config)
    put(layer.lora_A["default"].weight, down)
    put(layer.lora_B["default"].weight, up)
    longer = some(OUTPUTS)
    put(layer.lora_magnitude_vector["default"].weight, base.weight.norm(dim=1) + longer)
    delta = Directed(linear(down), linear(up), nn.Parameter(longer), Start(base.weight), 3.0)
    agree(DeltaLinear(base, delta), layer)


def test_uni_lora(peft, base):
    layer = twin(peft, base, peft.UniLoraConfig(r=RANK, theta_d_length=20, target_modules=["site"]))
    theta = some(1, 20)
    put(layer.unilora_theta_d["default"], theta[0])
    modules = []
    for part in "AB":
        index = getattr(layer, f"unilora_indices_{part}")["default"]
        scales = getattr(layer, f"unilora_scales_{part}")["default"]
        factors = torch.zeros(20)
        factors[index.flatten()] = scales.flatten()
        modules.append(Chosen(linear(theta), index, factors))
    agree(DeltaLinear(base, ComputedPair(*modules, 1.0, 0.0)), layer)


def test_tinylora(peft, base):
    layer = twin(peft, base, peft.TinyLoraConfig(r=2, u=6, target_modules=["site"]))
    values = some(1, 6)
    put(layer.tinylora_v["default"][layer._tinylora_v_key["default"]], values[0])
    core = Combination(rows(values), layer.tinylora_P["default"])
    left, right = layer.tinylora_B["default"], layer.tinylora_A["default"]
    agree(DeltaLinear(base, BetweenBases(core, left, right, 1.0)), layer)


@pytest.mark.parametrize("feedforward", [False, True])
def test_ia3(peft, base, feedforward):
    layer = twin(
        peft, base, peft.IA3Config(target_modules=["site"], feedforward_modules=["site"] * feedforward)
    )
    vector = some(1, INPUTS if feedforward else OUTPUTS)
    put(layer.ia3_l["default"], 1 + vector.view(layer.ia3_l["default"].shape))
    factors = Multiplied(rows(vector), 1.0)
    ours = MultipliedInputs(base, factors) if feedforward else ChangedOutputs(base, {"all": factors})
    agree(ours, layer)


def test_road(peft, base):
    layer = twin(peft, base, peft.RoadConfig(variant="road_1", group_size=64, target_modules=["site"]))
    angles, lengths = some(1, OUTPUTS // 2), some(1, OUTPUTS // 2)
    put(layer.road_theta["default"], angles[0])
    put(layer.road_alpha["default"], 1 + lengths[0])
    agree(ChangedOutputs(base, {"all": Rotated(rows(angles), rows(lengths), 64, 1.0)}), layer)


def test_vb_lora(peft, base):
    """Logits whose two largest differ so that the weights are multiples of the step of a stored weight."""
    vectors, length = 10, 32
    count = RANK * (INPUTS + OUTPUTS) // length
    bank = some(vectors, length)
    pieces = Pieces(linear(bank), count, 2, seed=0)
    second = torch.randint(1, 256, (count,), generator=STEPS) / 510
    order = torch.stack([torch.randperm(vectors, generator=STEPS) for _ in range(count)])
    logits = torch.full((count, vectors), -20.0)
    logits.scatter_(1, order[:, :1], (1 - second).log()[:, None])
    logits.scatter_(1, order[:, 1:2], second.log()[:, None])
    put(pieces.logits, logits)
    pair = ComputedPair(
        Composed(pieces, 0, (RANK, INPUTS), columns=False),
        Composed(pieces, RANK * INPUTS // length, (OUTPUTS, RANK), columns=True),
        1.0,
        0.0,
    )
    config = peft.VBLoRAConfig(
        r=RANK, num_vectors=vectors, vector_length=length, topk=2, target_modules=["site"]
    )
    layer = twin(peft, base, config)
    put(layer.vblora_vector_bank["default"], bank)
    down, up = logits.split([RANK * INPUTS // length, RANK * OUTPUTS // length])
    put(layer.vblora_logits_A["default"], down.view(RANK, -1, vectors))
    put(layer.vblora_logits_B["default"], up.view(-1, RANK, vectors))
    for choose in (lambda: pieces.choose(training=False), pieces.encode, pieces.decode):
        choose()  # by the logits, and by the codes of a file
        with torch.no_grad():
            x = some(1, INPUTS)
            torch.testing.assert_close(pair(base(x), x), layer.eval()(x), rtol=1e-5, atol=1e-5)
    agree(DeltaLinear(base, pair), layer)
