"""Proposals fitted to each datum: exact where the family is, unbiased however badly they fit."""

import pyro
import pytest
import torch
from catalog import CATALOG
from descents import free_of_charge, graph_alone
from linear_gaussian import (
    assert_same,
    contents,
    counts,
    drawn,
    guided,
    rates,
    rotated,
    shifted,
)
from pyro import distributions as dist
from pyro import poutine
from torch.testing import assert_close

from bayesvae import Annealing, Pair, annealed_evidence, families, log_evidence
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.estimates import mean_and_error
from bayesvae.evidence import elbo_per_datum, importance
from bayesvae.evidence.proposals import GUIDE, PRIOR, Budget, mixture, optimum
from bayesvae.optima import Ascender, Ascent
from bayesvae.pairs import ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}
FULL, DIAGONAL = families.MultivariateNormal, families.Normal
QUICK = Ascent(stages=1, windows=1, window=3)
"""Ends long before the optimum."""
NONE = QUICK._replace(window=1, rate=1e-12)
"""Stays where it starts."""


def astray(model):
    """A pair whose guide is beside the posterior and much too narrow."""
    return shifted(model, shift=0.7, widen=0.4)


def tried(proposal, pair, x, points=7):
    """The coordinates of a pair, the proposal's state, and a point to look at."""
    coordinates = Coordinates(pair.model, pair.guide, x)
    with torch.no_grad():
        state = proposal.fit(coordinates, Budget([pair], False, 1))(x, None)
        point = coordinates.at(torch.randn(points, len(x), coordinates.size), x, guide=True)
    return coordinates, state, point


# The truth ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_a_full_covariance_has_constant_weights_on_a_linear_gaussian_pair_and_the_guide_has_not():
    model = rotated()
    x, pair, k = drawn(model, 40), astray(model), 1000
    truth = model.log_evidence(x)
    full = log_evidence(pair, x, k, proposal=optimum(FULL))
    assert_close(full.value, truth.detach(), rtol=0.0, atol=5e-3)
    assert (full.effective_sample_size > 0.98 * k).all()
    assert full.trusted.all()
    diagonal = log_evidence(pair, x, k, proposal=optimum(DIAGONAL))
    assert (diagonal.effective_sample_size < full.effective_sample_size).all()
    guide = log_evidence(pair, x, k)
    assert (guide.effective_sample_size < 0.2 * k).all()
    assert (~guide.trusted).double().mean() > 0.8
    assert (diagonal.value - truth).abs().mean() < (guide.value - truth).abs().mean() / 5


@pytest.mark.parametrize("ascent", [NONE, QUICK], ids=["not at all", "hardly"])
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_weights_are_unbiased_however_badly_the_proposal_fits(ascent, start):
    """E[w] = p(x); the proposals are wide, so that the weights' variance is small."""
    model = rotated()
    x = drawn(model, 2000)
    pair = shifted(model, 0.3, 1.5) if start == "guide" else guided(model, _the_prior)
    found = log_evidence(pair, x, 50, proposal=optimum(FULL, ascent))
    assert found.effective_sample_size.mean() < 45, "the proposal fits"
    relative = (found.value - model.log_evidence(x)).exp().detach()
    error = relative.std() / len(x) ** 0.5
    assert error < 0.02
    assert (relative.mean() - 1).abs() < 4 * error


def _the_prior(x):
    return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_latents_of_any_support_are_fitted():
    """Gamma-Poisson, whose evidence is a negative binomial; log rate is nearly normal."""
    x = torch.tensor([0.0, 1.0, 4.0, 12.0])
    truth = dist.GammaPoisson(2.0, 1.5).log_prob(x)
    defensive = mixture(PRIOR, optimum(DIAGONAL))
    found = log_evidence(Pair(counts, rates), x, 4000, proposal=defensive)
    assert (found.effective_sample_size > 2000).all()
    assert ((found.value - truth) / found.stderr).abs().max() < 4.5


def test_a_guide_with_an_auxiliary_latent_is_no_obstacle():
    def guide(x, index=None):
        with pyro.plate("data", len(x)):
            auxiliary = {"is_auxiliary": True}
            a = pyro.sample(
                "a", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1), infer=auxiliary
            )
            pyro.sample("z", dist.Normal(a, 0.5).to_event(1))

    model = rotated()
    x = drawn(model, 10)
    pair = ppca(model, guide)
    found = log_evidence(pair, x, 200, proposal=optimum(FULL))
    assert_close(found.value, model.log_evidence(x).detach(), rtol=0.0, atol=0.02)
    with pytest.raises(ValueError, match="density of the others is an integral"):
        log_evidence(pair, x, 200, proposal=mixture(GUIDE, optimum(FULL)))


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
@pytest.mark.parametrize("width", [0.2, 3.0])
def test_the_density_of_an_auxiliary_latent_is_not_charged_to_the_guide(width):
    """It was, and moved a lower bound by the entropy of the auxiliary, past the truth."""
    model = rotated()

    def guide(x, index=None):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, width), infer={"is_auxiliary": True})
            loc = model.posterior(x).mean + 0.1 * torch.tanh(a).unsqueeze(-1)
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))

    x, pair = drawn(model, 10), ppca(model, guide)
    truth = model.log_evidence(x).detach()
    found = log_evidence(pair, x, 4000)
    assert (found.effective_sample_size > 500).all()
    assert ((found.value - truth) / found.stderr).abs().max() < 4.5
    bound = elbo_per_datum(pair, x, 2000)
    assert (bound.value + 4 * bound.stderr < truth).all()
    assert (bound.value > truth - 2).all()


def test_data_that_are_masked_out_have_weight_one():
    model, seen = rotated(), torch.arange(8) % 2 == 0

    def masked(program):
        def handled(x, index=None):
            with poutine.mask(mask=seen[: len(x)]):
                return program(x)

        return handled

    x, pair = drawn(model, 8), astray(model)
    both = Pair(masked(pair.model), masked(pair.guide))
    found = log_evidence(both, x, 50, proposal=optimum(FULL))
    expected = torch.where(seen, model.log_evidence(x), 0.0).detach()
    assert_close(found.value, expected, rtol=0.0, atol=0.02)
    assert_close(found.value[~seen], torch.zeros(4), **EXACT)


# Identities --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", [DIAGONAL, FULL, families.LowRankNormal, families.NormalMixture]
)
def test_the_density_is_that_of_the_draws(family):
    """Its own draws give E[1 / q] over a box of which the volume is known."""
    model = rotated()
    x = drawn(model, 3)
    proposal = optimum(family, QUICK)
    coordinates, state, _ = tried(proposal, shifted(model), x)
    with torch.no_grad():
        u = proposal.draw(coordinates, state, 20_000, x, None)
        log_q = proposal.log_density(state, coordinates.at(u, x))
        centre, width = u.mean(0), 2 * u.std(0)
        inside = ((u - centre).abs() < width / 2).all(-1)
        inverse = torch.where(inside, (-log_q).exp(), 0.0)
    error = inverse.std(0) / len(u) ** 0.5
    assert ((inverse.mean(0) - width.prod(-1)) / error).abs().max() < 4.5


def test_a_defensive_mixture_is_the_weighted_sum_of_its_parts():
    model = rotated()
    x, pair = drawn(model, 5), astray(model)
    shares, each = (0.2, 0.3, 0.5), (GUIDE, PRIOR, optimum(FULL, QUICK))
    _, states, point = tried(mixture(*each, shares=shares), pair, x)
    with torch.no_grad():
        found = mixture(*each, shares=shares).log_density(states, point)
        densities = [p.log_density(s, point).exp() for p, s in zip(each, states, strict=True)]
    expected = sum(share * density for share, density in zip(shares, densities, strict=True))
    assert_close(found, expected.log(), **EXACT)
    assert_close(densities[0].log(), point.log_guide, **EXACT)
    assert_close(densities[1].log(), point.log_prior, **EXACT)


def test_a_mixture_draws_from_its_parts_by_their_shares():
    model = rotated()
    x, far = drawn(model, 4), optimum(DIAGONAL, NONE)
    mixed = mixture(PRIOR, far, shares=(0.3, 0.7))
    pair = shifted(model, shift=30.0, widen=0.1)
    coordinates = Coordinates(pair.model, pair.guide, x)
    with torch.no_grad():
        state = mixed.start(coordinates, x, None)  # where the guide is, far from the prior
        u = mixed.draw(coordinates, state, 5000, x, None)
    share = (u[..., 0] > 10).double().mean()
    assert (share - 0.7).abs() < 4.5 * (0.3 * 0.7 / 20_000) ** 0.5


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_a_mixture_with_the_optimum_saves_a_guide_that_is_astray():
    model = rotated()
    x, pair = drawn(model, 30), astray(model)
    found = log_evidence(pair, x, 2000, proposal=mixture(GUIDE, PRIOR, optimum(DIAGONAL)))
    truth = model.log_evidence(x)
    assert found.trusted.double().mean() > 0.75
    assert ((found.value - truth) / found.stderr)[found.trusted].abs().max() < 4.5
    guide = log_evidence(pair, x, 2000)
    assert found.effective_sample_size.mean() > 5 * guide.effective_sample_size.mean()


# Batches -----------------------------------------------------------------------------------------


def test_rows_are_fitted_once_a_batch_and_not_once_a_chunk_of_draws(monkeypatch):
    sizes, climb = [], Ascender.__call__

    def counted(self, rows, *context):
        sizes.append(len(rows))
        return climb(self, rows, *context)

    monkeypatch.setattr(Ascender, "__call__", counted)
    monkeypatch.setattr(importance, "bytes_per_draw", lambda program, draws: 1)
    model = rotated()
    x = drawn(model, 23)
    proposal = mixture(optimum(FULL, QUICK), PRIOR)
    log_evidence(ppca(model), x, 1000, proposal=proposal, memory=10 * proposal.at_once)
    assert sorted(sizes) == [3, 10, 10]


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
@pytest.mark.parametrize("family", [FULL, families.NormalMixture])
def test_what_was_found_for_one_batch_is_not_baked_into_what_is_compiled(family, monkeypatch):
    """Catches rows that a trace of the first batch holds on to."""
    free_of_charge(monkeypatch)
    graph_alone(monkeypatch)
    model = rotated()
    x, pair = drawn(model, 40), shifted(model)
    monkeypatch.setattr(importance, "bytes_per_draw", lambda program, draws: 1)
    found = []
    for compile in (False, True):
        torch.manual_seed(0)
        proposal = mixture(GUIDE, optimum(family, NONE), shares=(0.1, 0.9))
        limits = {"memory": 10 * proposal.at_once, "compile": compile}
        found.append(log_evidence(pair, x, 96, proposal=proposal, **limits).value)
    assert_close(found[1], found[0], rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("name", ["fitted", "in a mixture"])
def test_a_path_may_begin_at_an_optimum(name):
    model = rotated()
    x, pair = drawn(model, 40), astray(model)
    start = optimum(FULL) if name == "fitted" else mixture(GUIDE, optimum(FULL))
    one = Annealing(temperatures=1, leapfrogs=1, chains=3, pilot=0, start=start)
    found = annealed_evidence(pair, x, one, progress=False)
    if name == "fitted":  # of one temperature, importance sampling from the exact posterior
        assert_close(found.value, model.log_evidence(x).detach(), rtol=0.0, atol=0.03)
    longer = one._replace(temperatures=20, leapfrogs=3, chains=8, pilot=10)
    apart = annealed_evidence(pair, x, longer, progress=False).value - model.log_evidence(x)
    mean, error = mean_and_error(apart.detach())
    assert abs(mean) < 4 * error + 0.01  # of which a lower bound may be biased by the latter
    from_the_guide = longer._replace(start=GUIDE)
    guide = annealed_evidence(pair, x, from_the_guide, progress=False).value
    assert apart.abs().mean() < (guide - model.log_evidence(x)).abs().mean() / 3


@pytest.mark.parametrize("name", [n for n in CATALOG if "subsampling" not in n])
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_any_pair_is_fitted_and_left_bit_for_bit_as_it_was(name):
    case = CATALOG[name]()
    case.pair.find_parameters(case.x, case.index)
    before = contents(case.pair)
    proposal = mixture(PRIOR, optimum(DIAGONAL, QUICK))
    found = log_evidence(case.pair, (case.x, case.index), 30, proposal=proposal)
    assert_same(before, contents(case.pair))
    assert torch.isfinite(found.value).all()
    assert bool(found.given) == case.shared
