"""What starts at parts of the frozen weight, exactly at all bits: PiSSA and SoKA; and KronA's shapes."""

import pytest
import torch

from petl_bench.adapters.decomposed import components
from petl_bench.adapters.kronecker import Kronecker, factors, rearranged
from petl_bench.adapters.soka import enough
from petl_bench.backbones import families
from petl_bench.errors import UserError
from petl_bench.model import assemble, restore
from petl_bench.packing import dump, load
from tests import tiny
from tests.agreeing import check_initial
from tests.reference.methods.soka import leading
from tests.test_methods import some_images, stirred

STARTED = pytest.mark.parametrize("name", ["pissa", "soka"])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
def test_components_are_the_singular_triplets(shape):
    matrix = random(*shape)
    found = components(matrix)
    torch.testing.assert_close((found.left * found.values) @ found.right.T, matrix.double())
    torch.testing.assert_close(found.values, torch.linalg.svdvals(matrix.double()))
    for vectors in (found.left, found.right):
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(min(shape), dtype=torch.float64))
    greatest = found.left.gather(0, found.left.abs().argmax(0, keepdim=True))
    assert (greatest > 0).all()


def test_factors_of_vit_b16():
    # The two closest factors of each width, as (outputs, inputs): 48 * 48, 32 * 24, 64 * 48.
    assert factors(2304, 768) == ((48, 32), (48, 24))
    assert factors(768, 768) == ((32, 32), (24, 24))
    assert factors(3072, 768) == ((64, 32), (48, 24))
    assert factors(768, 3072) == ((32, 64), (24, 48))
    assert factors(7, 1) == ((7, 1), (1, 1))


def test_a_kronecker_product_rearranged_has_rank_one():
    left, right = random(4, 3), random(2, 5, seed=1)
    found = rearranged(torch.kron(left, right), ((4, 3), (2, 5)))
    torch.testing.assert_close(found, torch.outer(left.flatten(), right.flatten()))


@pytest.mark.parametrize("terms", [1, 3, 40])
def test_the_fast_form_is_the_product(terms):
    # 4 * 3 terms of shapes (4, 6) and (3, 2) at most before the dense product is cheaper: both ways are here.
    lefts = [torch.nn.Linear(6, 4, bias=False) for _ in range(terms)]
    rights = [torch.nn.Linear(2, 3, bias=False) for _ in range(terms)]
    delta = Kronecker(lefts, rights, 0.7)
    x, base = random(2, 5, 12), random(2, 5, 12, seed=1)
    expected = sum(torch.kron(a.weight, b.weight) for a, b in zip(lefts, rights, strict=True))
    assert delta.fast == (terms == 1)
    torch.testing.assert_close(delta(base, x), base + 0.7 * x @ expected.T, rtol=1e-4, atol=1e-5)


@STARTED
@pytest.mark.parametrize("bits", [1, 2, 8, 32])
def test_it_starts_at_the_frozen_network_at_any_bits(name, bits):
    # 100 times what a rounding of the starts would leave.
    spec = tiny.model_spec(name, bits=bits, scale=100.0)
    adapted = assemble(spec, seed=3)
    adapted.prepare()
    check_initial(spec, adapted)


def test_pissa_starts_at_the_leading_singular_part():
    adapted = assemble(tiny.model_spec("pissa", bits=32, hidden=3))
    matrices = adapted.adapter.matrices
    weight = families.build(tiny.BACKBONE)[0].state_dict()["blocks.1.mlp.fc2.weight"]
    u, s, vt = torch.linalg.svd(weight)
    down, up = matrices["1.fc2.down"].weight, matrices["1.fc2.up"].weight
    torch.testing.assert_close(up @ down, (u[:, :3] * s[:3]) @ vt[:3], rtol=0, atol=1e-5)
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))  # the root of each singular value in both
    torch.testing.assert_close(up.norm(dim=0).square(), s[:3])


def test_soka_starts_at_the_leading_kronecker_terms():
    adapted = assemble(tiny.model_spec("soka", bits=32, hidden=3))
    matrices = adapted.adapter.matrices
    weight = families.build(tiny.BACKBONE)[0].state_dict()["blocks.0.attn.qkv.weight"]
    pairs = [[matrices[f"0.qkv.{side}.{k}"].weight for side in ("left", "right")] for k in range(3)]
    assert [tuple(side.shape) for side in pairs[0]] == [(12, 8), (12, 6)]
    torch.testing.assert_close(
        sum(torch.kron(*pair) for pair in pairs), leading(weight, 3), rtol=0, atol=1e-5
    )
    for left, right in pairs:
        torch.testing.assert_close(left.norm(), right.norm())


def test_terms_by_energy_and_by_elbow():
    # Squares 16, 9, 4, 1, 1, of 31: one holds more than half, two hold 25, three 29. The chord is 4, 3.25,
    # 2.5, 1.75, 1; the fourth value is farthest below it, by 0.75.
    values = torch.tensor([4.0, 3, 2, 1, 1], dtype=torch.float64)
    assert [enough(values, energy) for energy in (0.5, 0.8, 0.9)] == [1, 2, 3]
    assert enough(values, 1.0) == 4


def test_soka_takes_as_many_terms_as_the_spectrum_asks_for():
    def terms(**settings):
        matrices = assemble(tiny.model_spec("soka", **settings)).adapter.matrices
        return sum(name.startswith("0.proj.left") for name in matrices)

    assert terms(hidden=5) == 5
    assert terms(hidden=5, rank="spectrum", energy=1e-6) == 1
    assert terms(hidden=5, rank="spectrum") <= 5
    weight = families.build(tiny.BACKBONE)[0].state_dict()["blocks.0.attn.proj.weight"].double()
    tiles = weight.unfold(0, 6, 6).unfold(1, 6, 6).flatten(2).flatten(0, 1)
    squares = torch.linalg.svdvals(tiles).square()
    wanted = next(k for k in range(1, 37) if squares[:k].sum() >= 0.3 * squares.sum())
    assert terms(hidden=30, rank="spectrum", energy=0.3) == wanted


@STARTED
def test_a_rank_beyond_a_linear_is_refused(name):
    with pytest.raises(UserError, match=r"hidden is too large: 0\.(qkv|proj) .*49 .*has (48|36)"):
        assemble(tiny.model_spec(name, hidden=49))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": "elbow"}, "rank must be one of hidden, spectrum, not 'elbow'"),
        ({"energy": 0.0}, "energy=0.0"),
    ],
)
def test_soka_refuses_other_settings(settings, said):
    with pytest.raises(UserError, match=said):
        assemble(tiny.model_spec("soka", **settings))


@STARTED
def test_a_file_holds_the_trained_factors_alone(name):
    # Twice as large, it would hold the start too.
    spec = tiny.model_spec(name, bits=2, hidden=3)
    adapted = assemble(spec, seed=3)
    adapted.prepare()
    stirred(adapted)
    file = load(dump(adapted.file({})), "here")
    assert [tensor.entry.name for tensor in file.adapter] == list(adapted.adapter.attached.matrices)
    with torch.no_grad():
        expected = adapted.network.eval()(some_images())
        found = restore(spec, file, "here").eval()(some_images())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
