"""Ranks by depth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl_bench.adapters.lowrank import ALLOCATIONS, allocated
from petl_bench.errors import UserError
from petl_bench.model import assemble
from tests import tiny

METHODS = ["adaptformer", "corda", "hydra", "lora", "pissa", "repadapter"]


def test_ranks_of_twelve_blocks():
    # Quarters of the depth have 2, 4, 6 and 8, as the experts of MoLA (arXiv 2402.08562); the sum is 12 * 5.
    assert allocated("rising", 12, 5) == [2, 2, 2, 4, 4, 4, 6, 6, 6, 8, 8, 8]
    assert allocated("falling", 12, 5) == [8, 8, 8, 6, 6, 6, 4, 4, 4, 2, 2, 2]
    assert allocated("ends", 12, 5) == [8, 8, 8, 2, 2, 2, 2, 2, 2, 8, 8, 8]
    assert allocated("middle", 12, 5) == [2, 2, 2, 8, 8, 8, 8, 8, 8, 2, 2, 2]
    assert allocated("uniform", 12, 5) == [5] * 12


def test_the_largest_remainders_are_rounded_up():
    # 8 ranks in parts of 2, 4, 6, 8: 0.8, 1.6, 2.4, 3.2; the first gets its least, the second the last one.
    assert allocated("rising", 4, 2) == [1, 2, 2, 3]


@given(st.sampled_from(list(ALLOCATIONS)), st.integers(1, 40), st.integers(1, 40))
def test_all_allocations_have_one_sum(allocation, blocks, hidden):
    ranks = allocated(allocation, blocks, hidden)
    # Ranks of at least 1 can exceed the sum by one where hardly more than that is to be distributed.
    exceeded = 1 if hidden <= 2 and blocks % 2 and allocation in ("middle", "ends") else 0
    assert hidden * blocks <= sum(ranks) <= hidden * blocks + exceeded
    assert min(ranks) >= 1


@pytest.mark.parametrize("name", METHODS)
def test_blocks_have_the_ranks_they_are_given(name):
    # Two blocks are in the first and the third quarter: parts of 2 and 6.
    attached = assemble(tiny.model_spec(name, hidden=4, allocation="rising")).adapter.attached
    found = {
        name.split(".")[0]: matrix.out_features
        for name, matrix in attached.matrices.items()
        if name.endswith("down")
    }
    assert found == {"0": 2, "1": 6}


@pytest.mark.parametrize(("name", "first"), [("dylora", "q.down."), ("soka", "proj.left.")])
def test_methods_of_one_matrix_a_rank_have_as_many(name, first):
    matrices = assemble(tiny.model_spec(name, hidden=4, allocation="falling")).adapter.matrices
    # The first and the third quarter: parts of 8 and 4, of 8 ranks: 5.33 and 2.67.
    assert [sum(key.startswith(f"{i}.{first}") for key in matrices) for i in (0, 1)] == [5, 3]


@pytest.mark.parametrize("name", [*METHODS, "dylora", "soka"])
def test_another_allocation_is_refused(name):
    with pytest.raises(UserError, match=r"allocation must be one of uniform, .*, not 'raising'"):
        assemble(tiny.model_spec(name, allocation="raising"))


@pytest.mark.parametrize("name", ["adaptformer", "lora"])
def test_blocks_that_share_have_one_rank(name):
    with pytest.raises(UserError, match=r"share=0 .*allocation=ends"):
        assemble(tiny.model_spec(name, share=0, allocation="ends"))
