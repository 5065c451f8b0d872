"""Generators derived from (seed, purpose, indices)."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.seeding import derive_seed, numpy_generator, scoped_torch_seed, torch_generator

PLACES = st.tuples(
    st.integers(0, 2**40), st.sampled_from(["order", "init", "noise"]), st.integers(0, 99), st.integers(0, 99)
)


@given(one=PLACES, other=PLACES)
def test_seeds_are_equal_only_for_the_same_purpose_and_indices(one, other):
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**63


def test_generators_are_reproducible_and_leave_the_global_ones_unchanged():
    before = torch.random.get_rng_state()
    draws = [torch.rand(3, generator=torch_generator(0, "a", 1)) for _ in range(2)]
    assert torch.equal(*draws)
    assert numpy_generator(0, "a").random() == numpy_generator(0, "a").random() != numpy_generator(0, "b").random()
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_scoped_seed_ends_with_its_block():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with scoped_torch_seed(0, "init"):
        inside = torch.rand(2)
    with scoped_torch_seed(0, "init"):
        assert torch.equal(inside, torch.rand(2))
    assert torch.equal(torch.rand(2), expected)
