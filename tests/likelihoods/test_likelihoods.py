"""A likelihood's density is the formula's, its mean that of its draws."""

import math

import pytest
import torch
from linear_gaussian import z_scores
from torch import nn

from bayesvae import families, likelihoods, networks

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def decoder(*outputs):
    return networks.MLP(2, (8,), outputs, nn.Tanh)


LIKELIHOODS = {
    "Bernoulli": lambda: likelihoods.Bernoulli(decoder(3, 2)),
    "Normal, given": lambda: likelihoods.Normal(decoder(3, 2), scale=0.3),
    "Normal, learned": lambda: likelihoods.Normal(decoder(3, 2)),
    "Normal, predicted": lambda: likelihoods.Normal(decoder(3, 2), scale=decoder(3, 2)),
    "Categorical": lambda: likelihoods.Categorical(decoder(3, 2, 5)),
    "Poisson": lambda: likelihoods.Poisson(decoder(3, 2)),
}


def density_by_hand(name, likelihood, z, x):
    """log p(x | z) from its formula, summed over the event's entries."""
    out = likelihood.network(z)
    if name == "Bernoulli":
        terms = x * out - torch.log1p(out.exp())
    elif name == "Categorical":
        terms = torch.gather(out, -1, x.long().unsqueeze(-1)).squeeze(-1) - out.logsumexp(-1)
    elif name == "Poisson":
        rate = torch.log1p(out.exp()) + 1e-6
        terms = x * rate.log() - rate - torch.lgamma(x + 1)
    else:
        scale = likelihood.scale(z)
        terms = -0.5 * ((x - out) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    return terms.sum((-1, -2))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("leading", [(4,), (3, 4)])
def test_density_sums_over_the_event_alone_and_is_the_formula(name, leading):
    likelihood, z = LIKELIHOODS[name](), torch.randn(*leading, 2)
    p = likelihood(z)
    assert (p.batch_shape, p.event_shape) == (leading, (3, 2))
    x = p.sample()
    torch.testing.assert_close(p.log_prob(x), density_by_hand(name, likelihood, z, x), **EXACT)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_mean_is_the_mean_of_draws(name):
    likelihood, z = LIKELIHOODS[name](), torch.randn(4, 2)
    draws = likelihood.sample(z.expand(20_000, 4, 2)).double()
    assert not draws.requires_grad
    assert likelihood.mean(z).shape == (4, 3, 2)
    assert z_scores(draws, likelihood.mean(z)).abs().max() < 4.5


def test_categorical_mean_is_in_levels_and_not_a_class_or_a_probability():
    likelihood = likelihoods.Categorical(nn.Identity())
    certain = torch.full((1, 1, 5), -1e3)
    certain[..., 3] = 0.0
    torch.testing.assert_close(likelihood.mean(certain), torch.full((1, 1), 3.0), **EXACT)
    torch.testing.assert_close(likelihood.mean(torch.zeros(1, 5)), torch.full((1,), 2.0), **EXACT)


def test_given_scale_is_saved_but_not_trained_and_a_learned_one_is():
    given, learned = LIKELIHOODS["Normal, given"](), LIKELIHOODS["Normal, learned"]()
    assert all("scale" not in name for name, _ in given.named_parameters())
    assert given.state_dict()["fixed_scale"] == 0.3
    assert "raw_scale" in dict(learned.named_parameters())
    torch.testing.assert_close(learned.scale(torch.zeros(1, 2)), torch.tensor(1.0), **EXACT)


def test_a_learned_scale_starts_where_it_is_told():
    likelihood = likelihoods.Normal(nn.Linear(2, 3), start=0.07)
    torch.testing.assert_close(likelihood.scale(torch.zeros(1, 2)), torch.tensor(0.07), **EXACT)


def test_learned_scale_is_stationary_at_the_root_mean_squared_error():
    likelihood, z, x = LIKELIHOODS["Normal, learned"](), torch.randn(9, 2), torch.randn(9, 3, 2)
    error = (x - likelihood.mean(z)).square().mean().sqrt()
    with torch.no_grad():
        likelihood.raw_scale.copy_(families.raw_of(error))
    (slope,) = torch.autograd.grad(likelihood(z).log_prob(x).mean(), likelihood.raw_scale)
    torch.testing.assert_close(slope, torch.zeros(()), **EXACT)


def test_predicted_scale_follows_z_and_trains_its_network():
    likelihood, z = LIKELIHOODS["Normal, predicted"](), torch.randn(4, 2)
    assert likelihood.scale(z).shape == (4, 3, 2)
    assert not torch.equal(likelihood.scale(z)[0], likelihood.scale(z)[1])
    density = likelihood(z).log_prob(torch.randn(4, 3, 2)).sum()
    assert all(g.any() for g in torch.autograd.grad(density, likelihood.parameters()))


def test_normal_of_given_scale_is_squared_error_up_to_a_constant():
    likelihood = LIKELIHOODS["Normal, given"]()
    z, x = torch.randn(2, 4, 2), torch.randn(4, 3, 2)
    density = likelihood(z).log_prob(x)
    squares = (x - likelihood.mean(z)).square().sum((-1, -2))
    expected = -(squares[0] - squares[1]) / (2 * 0.3**2)
    torch.testing.assert_close(density[0] - density[1], expected, **EXACT)


@pytest.mark.parametrize("scale", [0, -0.1])
def test_scales_that_are_not_positive_are_refused(scale):
    with pytest.raises(ValueError, match="scale > 0; got"):
        likelihoods.Normal(nn.Linear(2, 3), scale=scale)
    with pytest.raises(ValueError, match="start > 0; got"):
        likelihoods.Normal(nn.Linear(2, 3), start=scale)
