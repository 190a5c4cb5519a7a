"""Layers of linear-Gaussian latents, where the climbing posterior and the evidence are exact."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bayesvae import log_evidence, pairs, priors
from bayesvae.core.trace import log_terms

WIDTHS = (5, 3, 2, 1)  # features of x, z1, z2, z3
NOISE = (0.5, 0.7, 0.9)


class Down(nn.Module):
    """N(W z, s^2 I): the likelihood, or a conditional between layers."""

    def __init__(self, above, below, scale):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(below, above)), scale

    def forward(self, z):
        return dist.Normal(z @ self.weight.T, self.scale).to_event(1)


class Up(nn.Module):
    """p(z | what lies below it) exactly, for z with marginal covariance S."""

    def __init__(self, down, covariance):
        super().__init__()
        self.down, self.covariance = down, covariance

    def posterior(self, below, index=None):
        weight, noise = self.down.weight, self.down.scale**2
        precision = torch.linalg.inv(self.covariance) + weight.T @ weight / noise
        loc = torch.linalg.solve(precision, (below @ weight / noise).unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision)


def linear_layers(layers):
    """A pair with its exact posterior, and the covariance of x."""
    sizes = list(zip(WIDTHS[1:], WIDTHS, NOISE, strict=False))[:layers]
    downs = [Down(above, below, scale) for above, below, scale in sizes]
    covariance, ups = torch.eye(WIDTHS[layers]), []
    for down in reversed(downs):
        ups.append(Up(down, covariance.detach()))
        noise = down.scale**2 * torch.eye(len(down.weight))
        covariance = down.weight @ covariance @ down.weight.T + noise
    prior = priors.StandardNormal(WIDTHS[layers])
    return pairs.hierarchical(prior, downs[1:], downs[0], ups[::-1]), covariance.detach()


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("particles", [1, 4])
def test_log_weights_under_the_exact_posterior_are_the_evidence(layers, particles):
    """Catches layers in the wrong order on either side, and terms lost or counted twice."""
    pair, covariance = linear_layers(layers)
    x = torch.randn(6, WIDTHS[0])
    truth = dist.MultivariateNormal(torch.zeros(WIDTHS[0]), covariance).log_prob(x)
    terms = log_terms(pair.model, pair.guide, x, particles=particles)
    expected = truth.expand(particles, -1)
    assert_close(terms.local.log_weight, expected, rtol=0, atol=1e-10)
    assert_close(log_evidence(pair, x, particles=3).value, truth, rtol=0, atol=1e-10)
