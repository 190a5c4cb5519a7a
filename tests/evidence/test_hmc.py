"""Hamiltonian Monte Carlo leaves densities as they are, finds their scales, and says where not."""

import pytest
import torch
from linear_gaussian import (
    assert_moments,
    counts,
    drawn,
    orthogonal,
    rates,
    rotated,
    shifted,
    z_scores,
)
from pyro import distributions as dist
from torch.testing import assert_close

from bayesvae import Pair, chains, hmc
from bayesvae.pairs import PPCA

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normal(scale, loc=0.0):
    """A diagonal normal as a density with its gradient."""

    def density(v):
        standard = (v - loc) / scale
        return -standard.square().sum(-1) / 2, -standard / scale

    return density


def tuning(step_size, data=5, dims=3):
    return hmc.Tuning(torch.full((data,), step_size), torch.ones(data, dims))


@pytest.mark.parametrize("leapfrogs", [1, 7])
@pytest.mark.parametrize("step_size", [0.1, 0.9])
def test_a_step_leaves_the_density_as_it_is(step_size, leapfrogs):
    """Coarse steps, so that a wrong acceptance would show."""
    scale = torch.tensor([1.0, 0.6, 2.0])
    state = hmc.init(scale * torch.randn(20_000, 5, 3), normal(scale))
    for _ in range(3):
        state, info = hmc.step(state, normal(scale), tuning(step_size), leapfrogs)
    assert info.accept.mean() > 0.3
    assert z_scores(state.position, torch.zeros(5, 3)).abs().max() < 4.5
    assert z_scores(state.position.square(), scale.square().expand(5, 3)).abs().max() < 4.5


def test_the_state_remembers_what_belongs_to_its_position():
    density = normal(torch.ones(3))

    def with_more(v):
        return [*density(v), v.sum(-1), 2 * v]

    state = hmc.init(torch.randn(50, 5, 3), with_more)
    state, info = hmc.step(state, with_more, tuning(1.7), 3)
    assert 0.1 < (info.accept < 0.5).double().mean() < 0.9  # some are taken, some are not
    for ours, exact in zip(state[1:3] + state.kept, with_more(state.position), strict=True):
        assert_close(ours, exact, **EXACT)


def test_the_leapfrog_steps_can_be_run_backwards():
    """With the momentum turned a trajectory comes home: what detailed balance rests on."""
    start, seen = torch.randn(1, 5, 3), []

    def density(v):
        seen.append(v)
        return torch.zeros(1, 5), -v  # always accepted, whatever the energy

    torch.manual_seed(0)
    state = hmc.State(start, torch.full((1, 5), -1e3), -start)
    hmc.step(state, density, tuning(0.3), 6, jitter=0.0)
    first, last = seen[-2:]
    # x_{t-1} = 2 x_t - x_{t+1} + e^2 grad(x_t): the recursion is the same in both directions.
    assert_close(2 * first - last - 0.09 * first, seen[-3], **EXACT)


def test_a_trajectory_that_leaves_the_flow_is_called_divergent_and_refused():
    density = normal(torch.full((3,), 1e-3))
    start = torch.zeros(4, 5, 3)
    state, info = hmc.step(hmc.init(start, density), density, tuning(1.0), 5)
    assert info.divergent.all()
    assert (info.accept == 0).all()
    assert_close(state.position, start, **EXACT)


def test_a_density_that_is_not_a_number_is_never_entered():
    def cliff(v):
        value = torch.where(v.abs().sum(-1) > 1, torch.nan, 0.0)
        return value, torch.zeros_like(v)

    state = hmc.init(torch.zeros(40, 5, 3), cliff)
    for _ in range(5):
        state, _ = hmc.step(state, cliff, tuning(0.3), 3)
    assert (state.position.abs().sum(-1) <= 1).all()


@pytest.mark.parametrize("steps", [10, 40, 100, 300, 1000])
def test_the_windows_of_a_warm_up_make_it_up(steps):
    lengths = hmc.windows(steps)
    assert sum(lengths) == steps
    assert min(lengths) > 0
    middle = lengths[1:-1]
    assert list(middle) == sorted(middle)


def test_a_warm_up_finds_scales_and_the_acceptance_that_it_is_asked_for():
    scale = torch.tensor([0.01, 1.0, 30.0])
    density = normal(scale, loc=scale)
    state = hmc.init(torch.randn(20, 5, 3), density)
    state, tuned = hmc.warm_up(state, density, 300, 8, target=0.8)
    assert ((tuned.inverse_mass.sqrt() / scale).log().abs() < 0.3).all()
    accept = []
    for _ in range(100):
        state, info = hmc.step(state, density, tuned, 8)
        accept.append(info.accept)
    assert_close(torch.stack(accept).mean((0, 1)), torch.full((5,), 0.8), rtol=0.0, atol=0.08)


# Pairs -------------------------------------------------------------------------------------------


def badly_scaled():
    """Latents of which one is known to three digits and the other hardly at all."""
    weight = torch.linalg.qr(torch.randn(5, 2)).Q * torch.tensor([600.0, 0.1])
    return PPCA(weight, torch.randn(5), 0.6)


RULERS = {
    "a correlated posterior": rotated,
    "a diagonal posterior": orthogonal,
    "a posterior that is sharp": lambda: rotated(scale=0.02),
    "a posterior of scales a thousandfold apart": badly_scaled,
}
GUIDES = {
    "the best diagonal guide": {},
    "a guide ten times too wide": {"widen": 10.0},
    "a guide of wrong scales": {"widen": torch.tensor([10.0, 0.1])},
}


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("ruler", RULERS)
def test_posterior_moments_are_those_of(ruler, guide):
    model = RULERS[ruler]()
    x = drawn(model, 6)
    found = chains.sample(
        shifted(model, **GUIDES[guide]), x, draws=200, warmup=200, leapfrogs=5, progress=False
    )
    exact = model.posterior(x)
    assert_moments(found, found.draws["z"], exact.mean, exact.covariance_matrix)


def test_chains_that_were_not_given_time_are_not_trusted():
    model = rotated(scale=0.02)
    x = drawn(model, 6)
    short = chains.sample(
        shifted(model, shift=5.0), x, draws=4, warmup=3, leapfrogs=1, progress=False
    )
    assert not short.trusted.any()


def test_the_memory_budget_changes_the_chunks_and_not_the_answer():
    model = rotated()
    x = drawn(model, 7)
    options = {"draws": 100, "warmup": 60, "leapfrogs": 4, "progress": False}
    found = chains.sample(shifted(model), x, memory=20_000, **options)
    assert found.draws["z"].shape == (100, 4, 7, 2)
    exact = model.posterior(x)
    error = exact.variance.sqrt() / found.effective_sample_size[:, None].sqrt()
    assert ((found.draws["z"].mean((0, 1)) - exact.mean) / error).abs().max() < 5
    assert "7 data" in str(found)


def test_a_posterior_on_the_positive_numbers_is_found():
    x = torch.tensor([0.0, 1.0, 4.0])
    found = chains.sample(Pair(counts, rates), x, draws=300, leapfrogs=4, progress=False)
    exact = dist.Gamma(2.0 + x, 2.5)
    error = (exact.variance / found.effective_sample_size).sqrt()
    assert ((found.draws["rate"].mean((0, 1)) - exact.mean) / error).abs().max() < 5
