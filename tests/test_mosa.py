"""What only MoSA has: experts, drawn anew in each pass of the training."""

import pytest
import torch

from petl_bench.adapters.mosa import Mosa, dealt
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny
from tests.agreeing import check
from tests.test_methods import some_images, stirred


def trainable(bits=32, **settings):
    adapted = assemble(tiny.model_spec("mosa", bits=bits, **settings), seed=3)
    adapted.prepare()
    stirred(adapted)
    return adapted, [module for module in adapted.network.modules() if isinstance(module, Mosa)]


def test_without_its_norm_it_agrees_with_the_plain_reference():
    check("mosa", norm="none")


@pytest.mark.parametrize(("size", "experts"), [((48, 4), 4), ((48, 4), 5), ((7, 3), 2), ((5, 1), 1)])
def test_experts_cover_the_matrix_in_equal_shares(size, experts):
    found = dealt(0, "a", size, experts)
    assert found.shape == size
    shares = found.flatten().bincount(minlength=experts)
    assert len(shares) == experts
    assert shares.max() - shares.min() <= 1


def test_the_seed_deals_the_experts():
    assert torch.equal(dealt(0, "a", (48, 4), 4), dealt(0, "a", (48, 4), 4))
    for other in (dealt(1, "a", (48, 4), 4), dealt(0, "b", (48, 4), 4)):
        # Two independent deals of 192 elements to four agree in a quarter: 48, of deviation 6.
        assert 18 < (other == dealt(0, "a", (48, 4), 4)).sum() < 78


@pytest.mark.parametrize("bits", [1, 32])
def test_evaluation_has_the_mean_of_what_training_draws(bits):
    adapted, (first, _) = trainable(bits)
    adapted.materialize()
    weight = first.eval().drawn()
    first.train()
    seen = {}
    for _ in range(100):
        drawn = first.drawn()
        (expert,) = first.experts[drawn != 0].unique().tolist()
        seen[expert] = drawn
    assert len(seen) == 4
    torch.testing.assert_close(sum(seen.values()) / 4, weight, rtol=1e-6, atol=0)
    for drawn in seen.values():
        kept = drawn != 0
        torch.testing.assert_close(drawn[kept], 4 * weight[kept], rtol=1e-6, atol=0)


def test_one_expert_of_each_block_learns_in_a_pass():
    torch.manual_seed(0)
    adapted, modules = trainable()
    pairs = set()
    for _ in range(60):
        for weight in adapted.trainable:
            weight.grad = None
        adapted.network.train()(some_images()).square().sum().backward()
        (ups,) = (s.latent.grad for s in adapted.adapter.stacks if s.latent.shape[1:] == (48, 4))
        learning = [m.experts[g != 0].unique().tolist() for m, g in zip(modules, ups, strict=True)]
        assert all(len(experts) == 1 for experts in learning)
        pairs.add((learning[0][0], learning[1][0]))
    # All but a third of a pair of 16 on average; blocks that drew alike would show 4.
    assert len(pairs) >= 12


def test_it_asks_the_training_for_two_passes():
    assert trainable()[0].adapter.attached.consistency == 1.0
    assert trainable(consistency=0.0)[0].adapter.attached.consistency == 0.0


@pytest.mark.parametrize(
    "settings", [{"experts": 0}, {"experts": 257}, {"consistency": -1.0}, {"norm": "in"}]
)
def test_what_makes_no_mixture_is_refused(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))} must be"):
        assemble(tiny.model_spec("mosa", **settings))
