"""Estimates of log p(x) are as good as their standard errors say, and change nothing."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import CATALOG, FEATURES, SIZE
from linear_gaussian import (
    SharedMean,
    assert_same,
    contents,
    diagonal_optimum,
    drawn,
    guided,
    kl_to_posterior,
    rotated,
    shifted,
)
from pyro import poutine
from torch import nn

from bayesvae import Pair, log_evidence
from bayesvae.core import memory, trace
from bayesvae.core.estimates import Weights, mean_and_error, weights
from bayesvae.evidence import elbo_per_datum, importance
from bayesvae.pairs import ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}
ESTIMATORS = [log_evidence, elbo_per_datum]


# The truth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_weights_of_the_exact_posterior_are_all_log_p_of_x(estimate):
    model = rotated()
    x = drawn(model, 30)
    result = estimate(ppca(model), x, particles=20)
    torch.testing.assert_close(result.value, model.log_evidence(x).detach(), **EXACT)
    torch.testing.assert_close(result.stderr, torch.zeros(30), rtol=0, atol=1e-6)
    if result.effective_sample_size is not None:
        expected = torch.full((30,), 20.0)
        torch.testing.assert_close(result.effective_sample_size, expected, **EXACT)
    assert (result.bound, result.given) == ("lower", "")


def assert_calibrated(result, truth, bias=0.0):
    """Errors in standard errors have mean near 0 and variance near 1 over the data."""
    z = (result.value - truth) / result.stderr
    n = len(z)
    assert z.mean().abs() < 4 / n**0.5 + bias
    assert (z.var() - 1).abs() < 4.5 * (2 / n) ** 0.5 + 0.05
    assert z.abs().max() < 6


def test_errors_of_log_evidence_are_as_large_as_stated():
    model = rotated()
    x = drawn(model, 600)
    result = log_evidence(shifted(model, 0.2, 1.5), x, particles=400)
    assert result.effective_sample_size.min() > 50
    # The log of a mean is low by half its variance.
    bias = result.stderr.mean() / 2
    assert_calibrated(result, model.log_evidence(x).detach(), bias.item())
    assert 0.02 < result.stderr.mean() < 0.2


def test_errors_of_the_elbo_are_as_large_as_stated():
    model = rotated()
    x = drawn(model, 600)
    with torch.no_grad():
        q = diagonal_optimum(model, x, 0.2, 1.5)
        truth = model.log_evidence(x) - kl_to_posterior(model, q, x)
    result = elbo_per_datum(shifted(model, 0.2, 1.5), x, particles=400)
    assert_calibrated(result, truth)
    assert result.effective_sample_size is None


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_more_particles_climb_from_the_elbo_towards_the_truth_and_not_past_it():
    model = rotated()
    x = drawn(model, 800)
    pair = shifted(model, 0.2)
    with torch.no_grad():
        truth = model.log_evidence(x)
        elbo = truth - kl_to_posterior(model, diagonal_optimum(model, x, 0.2), x)
    one, few, more, many = (log_evidence(pair, x, particles=k).value for k in (1, 4, 64, 2000))

    def gain(first, second):
        mean, error = mean_and_error(second - first)
        return mean / error

    assert abs(gain(elbo, one)) < 4  # One particle's bound is the ELBO.
    assert gain(one, few) > 4
    assert gain(few, more) > 4
    assert gain(more, truth) > -4
    assert abs(gain(many, truth)) < 4
    assert (truth - many).mean() < 0.01


# Arithmetic ------------------------------------------------------------------------------------


def running(w, *cuts):
    """Weights ``(K, B)`` added in pieces."""
    pieces = iter(torch.tensor_split(w, cuts))
    return weights(lambda k: next(pieces), len(w), len(w))


@pytest.mark.parametrize("cuts", [(), (1,), (1, 2, 6)])
@pytest.mark.parametrize("level", [0.0, -1e4, 1e4])
def test_running_sums_are_the_textbook_formulas_far_from_zero_too(cuts, level):
    w = level + 2 * torch.randn(9, 4)
    state = running(w, *cuts)
    plain = (w - level).exp()
    elbo, evident = state.elbo(), state.log_evidence()
    torch.testing.assert_close(elbo.value, w.mean(0), **EXACT)
    torch.testing.assert_close(elbo.stderr, w.std(0) / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(evident.value, plain.mean(0).log() + level, **EXACT)
    size = plain.sum(0) ** 2 / plain.square().sum(0)
    torch.testing.assert_close(evident.effective_sample_size, size, rtol=1e-8, atol=0)
    # The delta method: the relative error of the mean weight, with n - 1.
    torch.testing.assert_close(evident.stderr, plain.std(0) / plain.mean(0) / 3, rtol=1e-6, atol=0)


def test_one_particle_has_no_standard_error():
    state = running(torch.randn(1, 3))
    assert state.elbo().stderr.isnan().all()
    assert state.log_evidence().stderr.isnan().all()
    torch.testing.assert_close(state.elbo().value, state.log_evidence().value)


def test_single_precision_weights_are_summed_in_double():
    w = (1e4 + torch.randn(1000, 3)).float()
    state = running(w, *range(1, 1000))
    torch.testing.assert_close(state.elbo().value, w.double().mean(0), **EXACT)


def test_a_weight_of_zero_counts_as_a_draw():
    w = torch.tensor([[0.0], [-math.inf]])
    state = running(w)
    torch.testing.assert_close(state.log_evidence().value, torch.tensor([0.5]).log(), **EXACT)
    torch.testing.assert_close(state.log_evidence().effective_sample_size, torch.ones(1), **EXACT)


def test_mean_and_error_are_over_the_data():
    values = torch.randn(50)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean().item())
    assert error == pytest.approx(values.std().item() / 50**0.5)
    assert math.isnan(mean_and_error(values[:1])[1])


# Particles and memory --------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The (particles, rows) of every evaluation; of one particle, a look at sizes first."""
    seen, terms = [], trace.log_terms

    def counted(model, guide, x, index=None, **settings):
        if "particles" in settings:
            seen.append((settings["particles"], tuple(index.tolist())))
        return terms(model, guide, x, index, **settings)

    monkeypatch.setattr(trace, "log_terms", counted)
    return seen


@pytest.mark.parametrize("estimate", ESTIMATORS)
@pytest.mark.parametrize("particles", [1, 7, 10])
@pytest.mark.parametrize("draws", [1, 4, 25, 10_000])
def test_every_datum_gets_exactly_k_particles_within_the_budget(
    calls, monkeypatch, estimate, particles, draws
):
    monkeypatch.setattr(importance, "bytes_per_draw", lambda program, draws: 100)
    model = rotated()
    x = drawn(model, 23)
    result = estimate(ppca(model), x, particles=particles, memory=100 * draws)
    counts = torch.zeros(23)
    for k, index in calls:
        counts[list(index)] += k
        assert k * len(index) <= draws
    assert counts.tolist() == [particles] * 23
    torch.testing.assert_close(result.value, model.log_evidence(x).detach(), **EXACT)


def test_a_budget_that_is_wide_enough_is_used_in_one_go(calls):
    model = rotated()
    log_evidence(ppca(model), drawn(model, 23), particles=10)
    assert calls[1:] == [(10, tuple(range(23)))]


@pytest.mark.parametrize("per_draw", [1, 7, 1000])
@pytest.mark.parametrize("particles", [1, 64, 5000])
def test_chunks_stay_within_memory_but_never_below_one_draw(per_draw, particles):
    for budget in (1, 999, 10**4, 10**6):
        size = memory.chunks(budget, per_draw, particles)
        assert size.rows >= 1
        assert 1 <= size.particles <= particles
        assert size.rows * size.particles * per_draw <= max(budget, per_draw)
        assert size.rows == 1 or size.particles == particles


def test_bytes_per_draw_covers_what_a_program_allocates_and_spares_the_random_stream():
    before = torch.get_rng_state()

    def program():
        return torch.randn(10, 1000).exp().sum(-1)

    found = memory.bytes_per_draw(program, 10)
    assert 2 * 8 * 1000 <= found <= 3 * 8 * 1000
    assert torch.equal(torch.get_rng_state(), before)


def test_cutting_into_chunks_changes_estimates_within_their_error_alone():
    model = rotated()
    x, pair = drawn(model, 40), shifted(model, 0.2, 1.5)
    for estimate in ESTIMATORS:
        whole = estimate(pair, x, particles=300)
        pieces = estimate(pair, x, particles=300, memory=40_000)
        z = (whole.value - pieces.value) / (whole.stderr**2 + pieces.stderr**2).sqrt()
        assert z.abs().max() < 4.5
        assert 0.5 < z.std() < 1.5


def test_estimates_come_in_the_order_of_the_data_and_not_of_a_shuffled_loader():
    model = rotated()
    x = drawn(model, 23)
    shuffled = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x), batch_size=5, shuffle=True, drop_last=True
    )
    result = log_evidence(ppca(model), shuffled, particles=2, memory=20_000)
    torch.testing.assert_close(result.value, model.log_evidence(x).detach(), **EXACT)


@pytest.mark.parametrize("particles", [0, -3])
def test_no_particles_are_refused(particles):
    with pytest.raises(ValueError, match=f"particles >= 1; got {particles}"):
        log_evidence(ppca(rotated()), torch.zeros(3, 5), particles=particles)


# Nothing changes -------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_an_evaluation_of_any_pair_is_finite_and_leaves_it_bit_for_bit_as_it_was(case, estimate):
    pair = case.pair
    pair.find_parameters(case.x, case.index)
    next(pair.children()).eval()
    before = contents(pair)
    source = case.x if case.index is None else (case.x, case.index)
    result = estimate(pair, source, particles=3)
    assert_same(before, contents(pair))
    assert torch.isfinite(result.value).all()
    assert result.value.shape == result.stderr.shape == (len(case.x),)
    assert bool(result.given) == case.shared


def test_an_evaluation_that_fails_puts_the_modes_back_too():
    class Failing(nn.Module):
        def forward(self, x):
            assert not self.training
            if len(x) < 20:
                return x
            raise RuntimeError("on a whole batch")

    failing, model = Failing(), rotated()
    pair = guided(model, lambda x: model.posterior(failing(x)))
    before = contents(pair)
    with pytest.raises(RuntimeError, match="on a whole batch"):
        log_evidence(pair, drawn(model, 30))
    assert failing.training
    assert_same(before, contents(pair))


# What an estimate is conditional on, and what has none -----------------------------------------


@pytest.mark.parametrize("estimate", ESTIMATORS)
@pytest.mark.parametrize("memory", [2**28, 4000])
def test_shared_latents_are_fixed_at_the_mean_of_their_guide_and_said_to_be(estimate, memory):
    shared = SharedMean(0.7)
    x = torch.randn(12)
    result = estimate(Pair(shared.model, shared.guide), x, particles=5, memory=memory)
    torch.testing.assert_close(result.value, shared.log_evidence(x, 0.7), **EXACT)
    assert result.given == "given shared latents ['mean'] at the mean of their guide"


def test_shared_latents_fixed_at_a_draw_are_the_same_for_all_data():
    shared = SharedMean(0.7)
    x, variance = torch.randn(12), shared.a**2 + shared.b**2
    pair = Pair(shared.model, shared.guide)
    found = []
    for _ in range(3):
        result = log_evidence(pair, x, particles=5, draw_shared=True, memory=4000)
        assert "at a draw of their guide" in result.given
        # The difference of two data's values is linear in the mean.
        slope = (x[0] - x[1]) / variance
        level = -(x[0] ** 2 - x[1] ** 2) / (2 * variance)
        mean = (result.value[0] - result.value[1] - level) / slope
        torch.testing.assert_close(result.value, shared.log_evidence(x, mean), **EXACT)
        found.append(mean.item())
    assert len(set(found)) == 3
    assert max(abs(mean - 0.7) for mean in found) < 5 * 0.3


def test_masked_data_have_evidence_one():
    model = rotated()
    x = drawn(model, 8)
    seen = torch.arange(8) % 2 == 0

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.mask(mask=seen[: len(x)]):
                mean = z @ model.weight.T + model.loc
                pyro.sample("x", dist.Normal(mean, model.scale).to_event(1), obs=x)

    def guide(x):
        exact, keep = model.posterior(x), seen[: len(x), None]
        loc = torch.where(keep, exact.mean, 0.0)
        tril = torch.where(keep.unsqueeze(-1), exact.scale_tril, torch.eye(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    result = log_evidence(Pair(program, guide), x, particles=5)
    expected = torch.where(seen, model.log_evidence(x), 0.0).detach()
    torch.testing.assert_close(result.value, expected, **EXACT)


@pytest.mark.parametrize(
    "point_mass",
    [lambda z: dist.Delta(z, event_dim=1), lambda z: dist.Delta(z).to_event(1)],
    ids=["Delta", "independent Deltas"],
)
@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_a_point_mass_has_no_weights_and_is_refused(estimate, point_mass):
    model = rotated()
    pair = guided(model, lambda x: point_mass(model.posterior(x).mean))
    with pytest.raises(ValueError, match="guide of 'z' is a point mass"):
        estimate(pair, drawn(model, 4))


@pytest.mark.parametrize("seed", range(6))
def test_a_row_a_datum_is_found_among_other_parameters_whatever_their_rounding(seed):
    torch.manual_seed(seed)
    case = CATALOG["by hand, subsampling plate"]()
    with pytest.raises(ValueError, match="a row for each of 10 data; got 6"):
        log_evidence(case.pair, case.x, particles=2)
    assert log_evidence(case.pair, torch.randn(SIZE, FEATURES), particles=2).value.shape == (SIZE,)


def test_a_scaled_model_has_no_log_p_of_x_and_is_refused():
    model = rotated()
    pair = Pair(poutine.scale(model, 0.5), model.exact_guide)
    with pytest.raises(ValueError, match="no scales, but site"):
        log_evidence(pair, drawn(model, 4))


def test_an_unsound_pair_is_refused_before_any_estimate():
    model = rotated()
    pair = guided(model, lambda x: model.posterior(x).expand((3, len(x))))
    with pytest.raises(ValueError, match="not sound"):
        log_evidence(pair, drawn(model, 4))


def test_weights_start_from_no_draws():
    assert weights(lambda k: torch.zeros(k, 2), 5, 2).count == 5
    assert isinstance(weights(lambda k: torch.zeros(k, 2), 1, 9), Weights)
