"""Latents in R^D have the densities that the change of variables asks for."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import counts, drawn, rates, rotated, shifted
from pyro import poutine
from torch import nn
from torch.testing import assert_close

from bayesvae.core.coordinates import Coordinates, Standardised

EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Mixed(nn.Module):
    """A gamma latent, a beta one inside its range, a sequence of normals, and a simplex."""

    def model(self, x, index=None):
        plate = pyro.plate("data", len(x), dim=-1)
        with plate:
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.5))
            share = pyro.sample("share", dist.Beta(2.0, 3.0))
            below = pyro.sample("below", dist.Uniform(torch.zeros_like(rate), rate))
            parts = pyro.sample("parts", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("time", 4, dim=-2), plate:
            step = pyro.sample("step", dist.Normal(share, rate))
        with plate:
            parents = torch.broadcast_tensors(step.sum(-2, True), below, parts[..., 0])
            mean = torch.stack(parents, -1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x, index=None):
        plate = pyro.plate("data", len(x), dim=-1)
        with plate:
            rate = pyro.sample("rate", dist.LogNormal(x[:, 0] / 10, 0.4))
            pyro.sample("share", dist.Beta(3.0, 3.0))
            pyro.sample("below", dist.Uniform(torch.zeros_like(rate), rate))
            pyro.sample("parts", dist.Dirichlet(2 * torch.ones(3)))
        with pyro.plate("time", 4, dim=-2), plate:
            pyro.sample("step", dist.Normal(0.0, 1.0))


@pytest.fixture
def mixed():
    programs, x = Mixed(), torch.randn(5, 3)
    return Coordinates(programs.model, programs.guide, x), x


def test_sites_stand_side_by_side_with_the_dims_that_their_supports_leave_free(mixed):
    coordinates, _ = mixed
    assert coordinates.names == ("rate", "share", "below", "parts", "step")
    assert coordinates.size == 1 + 1 + 1 + 2 + 4


@pytest.mark.parametrize("particles", [1, 3])
def test_latents_become_u_and_come_back(mixed, particles):
    coordinates, x = mixed
    u = coordinates.draws(particles, x)
    assert u.shape == (particles, 5, 9)
    values = coordinates.latents(u, x)
    assert values["parts"].shape == (particles, 5, 3)
    assert values["step"].shape == (particles, 5, 4)
    assert ((values["below"] > 0) & (values["below"] < values["rate"])).all()
    assert_close(values["parts"].sum(-1), torch.ones(particles, 5), **EXACT)
    assert_close(u[..., 0], values["rate"].log(), **EXACT)
    assert_close(u[..., 1], values["share"].logit(), **EXACT)
    assert_close(u[..., 2], (values["below"] / values["rate"]).logit(), **EXACT)


@pytest.mark.parametrize("particles", [1, 3])
def test_densities_are_those_of_the_latents_times_the_jacobian(mixed, particles):
    coordinates, x = mixed
    u = coordinates.draws(particles, x)
    z, point = coordinates.latents(u, x), coordinates.at(u, x, guide=True)
    rate, share, below = z["rate"], z["share"], z["below"]
    portion = below / rate
    jacobian = rate.log() + share.log() + (1 - share).log()
    jacobian = jacobian + rate.log() + portion.log() + (1 - portion).log()
    jacobian = jacobian + _stick_breaking(u[..., 3:5])
    uniform = -rate.log()
    prior = dist.Gamma(2.0, 1.5).log_prob(rate) + dist.Beta(2.0, 3.0).log_prob(share) + uniform
    prior = prior + dist.Dirichlet(torch.ones(3)).log_prob(z["parts"])
    prior = prior + dist.Normal(share[..., None], rate[..., None]).log_prob(z["step"]).sum(-1)
    assert_close(point.log_prior, prior + jacobian, **EXACT)
    mean = torch.stack([z["step"].sum(-1), below, z["parts"][..., 0]], -1)
    likelihood = dist.Normal(mean, 1.0).log_prob(x).sum(-1)
    assert_close(point.log_likelihood, likelihood, **EXACT)
    guide = dist.LogNormal(x[:, 0] / 10, 0.4).log_prob(rate) + uniform
    guide = guide + dist.Beta(3.0, 3.0).log_prob(share)
    guide = guide + dist.Dirichlet(2 * torch.ones(3)).log_prob(z["parts"])
    guide = guide + dist.Normal(0.0, 1.0).log_prob(z["step"]).sum(-1)
    assert_close(point.log_guide, guide + jacobian, **EXACT)


def _stick_breaking(u):
    """log |det| of R^2 onto the simplex of three parts, by autograd."""

    def parts(row):
        return torch.distributions.biject_to(dist.constraints.simplex)(row)[:2]

    rows = u.reshape(-1, 2)
    found = [torch.autograd.functional.jacobian(parts, row).det().abs().log() for row in rows]
    return torch.stack(found).reshape(u.shape[:-1])


def test_a_density_in_one_dimension_integrates_to_the_evidence():
    """Without the Jacobian the integral over u would be another one."""
    x = torch.tensor([0.0, 1.0, 4.0])
    u = torch.linspace(-12, 5, 4001)[:, None, None].expand(-1, 3, 1)
    density = Coordinates(counts, rates, x).at(u, x).log_joint
    evidence = torch.trapezoid(density.exp(), u[..., 0], dim=0).log()
    exact = dist.GammaPoisson(2.0, 1.5).log_prob(x)
    assert_close(evidence, exact, rtol=0.0, atol=1e-8)


def test_a_linear_gaussian_pair_has_its_own_density():
    model = rotated()
    pair, x = shifted(model), drawn(model, 6)
    coordinates = Coordinates(pair.model, pair.guide, x)
    u = torch.randn(4, 6, 2)
    joint = model.log_evidence(x) + model.posterior(x).log_prob(u)
    assert_close(coordinates.at(u, x).log_joint, joint, **EXACT)


def test_data_that_are_masked_out_have_no_density_at_all():
    def model(x, index=None):
        with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.5))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    def guide(x, index=None):
        with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
            pyro.sample("rate", dist.LogNormal(0.0, 1.0))

    x = torch.tensor([1.0, -1.0])
    point = Coordinates(model, guide, x).at(torch.randn(3, 2, 1), x, guide=True)
    assert (point.log_joint[:, 1] == 0).all()
    assert (point.log_guide[:, 1] == 0).all()
    assert (point.log_joint[:, 0] != 0).all()


def test_prior_draws_follow_the_prior(mixed):
    coordinates, x = mixed
    rate = coordinates.latents(coordinates.prior_draws(4000, x), x)["rate"]
    exact = dist.Gamma(2.0, 1.5)
    error = math.sqrt(exact.variance / rate.numel())
    assert abs(rate.mean() - exact.mean) < 4 * error


def test_standardised_coordinates_have_mean_zero_and_unit_scale_and_go_back():
    draws = 3 + 5 * torch.randn(50, 4, 2)
    standardised = Standardised.by(draws)
    v = standardised.to_v(draws)
    assert_close(v.mean(0), torch.zeros(4, 2), **EXACT)
    assert_close(v.std(0), torch.ones(4, 2), **EXACT)
    assert_close(standardised.to_u(v), draws, **EXACT)
    assert_close(standardised.log_determinant, draws.std(0).log().sum(-1), **EXACT)


def discrete(x, index=None):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def real(x, index=None):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def silent(x, index=None):
    pass


def with_an_auxiliary(x, index=None):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(a, 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [(discrete, discrete, "'z' is Bernoulli"), (real, silent, "missing \\['z'\\]")],
)
@pytest.mark.filterwarnings("ignore:Found vars in model but not guide:UserWarning")
def test_is_refused_in_words(model, guide, words):
    with pytest.raises(ValueError, match=words):
        Coordinates(model, guide, torch.zeros(3))


def test_the_density_of_a_guide_with_auxiliary_latents_is_refused():
    x = torch.zeros(3)
    coordinates = Coordinates(real, with_an_auxiliary, x)
    assert coordinates.at(torch.zeros(2, 3, 1), x).log_joint.shape == (2, 3)
    with pytest.raises(ValueError, match="auxiliary"):
        coordinates.at(torch.zeros(2, 3, 1), x, guide=True)
