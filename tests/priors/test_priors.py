"""A prior's density, draws and moments agree."""

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import covariance, encoder, z_scores
from torch import nn
from torch.distributions import constraints

from bayesvae import families, priors
from bayesvae.pairs import BottomUp

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def scattered(prior):
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prior


PRIORS = {
    "StandardNormal": lambda: priors.StandardNormal(2),
    "Normal": lambda: priors.Normal(2),
    "Mixture": lambda: priors.Mixture(2, 3),
    "Mixture, full": lambda: priors.Mixture(2, 3, families.MultivariateNormal),
    "Vamp": lambda: priors.Vamp(encoder(), torch.rand(20, 4), 3),
    "Vamp, full": lambda: priors.Vamp(
        encoder(family=families.MultivariateNormal), torch.randn(20, 4), 3
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_samples_of_a_prior_have_the_moments_that_it_states(name):
    p = scattered(PRIORS[name]())()
    assert (p.batch_shape, p.event_shape) == ((), (2,))
    draws = p.sample((20_000,))
    assert z_scores(draws, p.mean).abs().max() < 4.5
    assert z_scores((draws - p.mean).square(), p.variance).abs().max() < 4.5


@pytest.mark.parametrize("name", PRIORS)
def test_density_of_a_prior_is_that_of_its_samples(name):
    # E_p[f / p] = integral of f = 1 for a normalised density f, here wider than p.
    p = scattered(PRIORS[name]())()
    f = dist.Normal(p.mean, 2 * p.stddev).to_event(1)
    z = f.sample((20_000,))
    assert z_scores((p.log_prob(z) - f.log_prob(z)).exp(), torch.ones(())).abs() < 4.5


@pytest.mark.parametrize("name", PRIORS)
def test_every_parameter_of_a_prior_is_reached_by_its_density(name):
    prior = scattered(PRIORS[name]())
    parameters = list(prior.parameters())
    if parameters:
        density = prior().log_prob(torch.randn(7, 2)).sum()
        assert all(g.any() for g in torch.autograd.grad(density, parameters))
    assert bool(parameters) == (name != "StandardNormal")


def test_normal_priors_start_at_the_standard_normal():
    for prior in (priors.Normal(3), priors.StandardNormal(3)):
        torch.testing.assert_close(prior().mean, torch.zeros(3), **EXACT)
        torch.testing.assert_close(covariance(prior()), torch.eye(3), **EXACT)


@pytest.mark.parametrize("family", [families.Normal, families.MultivariateNormal])
def test_mixture_is_the_log_sum_of_weighted_components_by_hand(family):
    prior = scattered(priors.Mixture(2, 4, family))
    z, total = prior().sample((9,)), torch.zeros(9)
    for logit, row in zip(prior.logits, prior.rows, strict=True):
        total = total + (logit + family(2)(row).log_prob(z)).exp()
    expected = total.log() - prior.logits.exp().sum().log()
    torch.testing.assert_close(prior().log_prob(z), expected, **EXACT)


def test_mixture_starts_with_equal_weights_and_unit_variances_at_different_means():
    prior = priors.Mixture(2, 5)
    components = prior().component_distribution
    torch.testing.assert_close(components.variance, torch.ones(5, 2), **EXACT)
    torch.testing.assert_close(prior().mixture_distribution.probs, torch.full((5,), 0.2), **EXACT)
    assert torch.pdist(components.mean).min() > 0


@pytest.mark.parametrize("name", ["Vamp", "Vamp, full"])
def test_vamp_is_the_mean_of_the_encoders_posteriors_at_its_pseudo_inputs(name):
    prior = scattered(PRIORS[name]())
    z = prior().sample((9,))
    densities = [prior.encoder.posterior(u).log_prob(z).exp() for u in prior.pseudo_inputs]
    torch.testing.assert_close(prior().log_prob(z), (sum(densities) / 3).log(), **EXACT)


def test_vamp_takes_the_top_posterior_of_a_layered_guide():
    layers = BottomUp([encoder(4, 3), encoder(3, 2)])
    prior = priors.Vamp(layers, torch.rand(20, 4), 5)
    middle = layers.posteriors[0].posterior(prior.pseudo_inputs).mean
    expected = layers.posteriors[1].posterior(middle).mean.mean(0)
    torch.testing.assert_close(prior().mean, expected, **EXACT)


def test_pseudo_inputs_of_images_never_leave_the_unit_interval():
    data = torch.cat([torch.zeros(5, 4), torch.ones(5, 4)])
    prior = priors.Vamp(encoder(), data, 10)
    torch.testing.assert_close(prior.pseudo_inputs, data.clamp(0.05, 0.95), **EXACT)
    with torch.no_grad():
        prior.raw_inputs.mul_(1e6)
    assert ((prior.pseudo_inputs >= 0) & (prior.pseudo_inputs <= 1)).all()


def test_pseudo_inputs_of_real_data_start_at_data_and_are_free():
    data = 3 * torch.randn(9, 4)
    prior = priors.Vamp(encoder(), data, 3)
    torch.testing.assert_close(prior.pseudo_inputs, data[[0, 4, 8]], **EXACT)
    unit = priors.Vamp(encoder(), torch.rand(9, 4), 3, constraint=constraints.real)
    torch.testing.assert_close(unit.pseudo_inputs, unit.raw_inputs, rtol=0, atol=0)


@pytest.mark.parametrize("components", [0, 21])
def test_vamp_refuses_no_components_and_more_than_data(components):
    with pytest.raises(ValueError, match=f"components={components} for 20 data"):
        priors.Vamp(encoder(), torch.rand(20, 4), components)


def test_priors_refuse_what_they_cannot_use():
    with pytest.raises(TypeError, match=r"needs an encoder with `posterior\(x\)`; got Linear"):
        priors.Vamp(nn.Linear(4, 4), torch.rand(20, 4), 3)
    with pytest.raises(ValueError, match="components >= 1; got 0"):
        priors.Mixture(2, 0)
