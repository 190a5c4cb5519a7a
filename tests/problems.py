"""Pairs with known log p(x) and posteriors and imperfect guides: what estimators are judged by."""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from linear_gaussian import counts, rates
from ruler_catalog import RULERS
from torch import Tensor, nn

from bayesvae import likelihoods, networks, pairs, priors, rulers
from bayesvae.core.pair import Pair
from bayesvae.generate import joint_draws

Moments = tuple[Tensor, Tensor]
"""A mean ``(B, D)`` and a covariance ``(B, D, D)``."""


class Problem(NamedTuple):
    """A pair, and what is true of it.

    Attributes:
        pair: its guide is near the posterior, and not it.
        event: shape of a datum.
        log_evidence: log p(x), of x ``(B, *event)``.
        moments: of the latents of a datum, flattened.
    """

    pair: Pair
    event: tuple[int, ...]
    log_evidence: Callable[[Tensor], Tensor]
    moments: Callable[[Tensor], Moments] | None = None

    def data(self, size: int) -> Tensor:
        """Draws of the model."""
        with torch.no_grad():
            return joint_draws(self.pair, self.pair.model, size, self.event)[0]


def of_distribution(posterior: dist.Distribution) -> Moments:
    """The moments of independent or of jointly normal latents."""
    if isinstance(posterior, torch.distributions.MultivariateNormal):
        return posterior.mean, posterior.covariance_matrix
    return posterior.mean.unsqueeze(-1), posterior.variance[..., None, None]


def ruler(name: str, event: tuple[int, ...], discrete: bool = False) -> Problem:
    """A ruler whose guide is the posterior of another one, with numbers beside its own."""
    true = RULERS[name]().requires_grad_(False)
    other = copy.deepcopy(true)
    for parameter in other.parameters():
        parameter += 0.1 * torch.randn_like(parameter)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample(true.site, other.posterior(x))

    moments = None if discrete else lambda x: of_distribution(true.posterior(x))
    return Problem(true.pair(guide), event, true.log_evidence, moments)


def shared_mean() -> Problem:
    """Given the shared latent at its guide's mean."""
    true, mean = rulers.SharedMean().requires_grad_(False), torch.tensor(0.7)

    def guide(x: Tensor) -> None:
        given = pyro.sample("mean", dist.Normal(mean, 0.3))
        with pyro.plate("data", len(x)):
            exact = true.posterior(x, given)
            pyro.sample("z", dist.Normal(exact.mean + 0.1, 1.2 * exact.stddev))

    return Problem(
        true.pair(guide),
        (),
        lambda x: true.log_evidence(x, mean),
        lambda x: of_distribution(true.posterior(x, mean)),
    )


def gamma_poisson() -> Problem:
    """A latent on the positive numbers."""
    marginal = dist.GammaPoisson(2.0, 1.5)
    return Problem(
        Pair(counts, rates),
        (),
        marginal.log_prob,
        lambda x: of_distribution(dist.Gamma(2.0 + x, 2.5)),
    )


def by_quadrature(prior: nn.Module, likelihood: nn.Module, features: int, dim: int) -> Problem:
    """A decoder that bends, with a guide that is wide."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.2 * x[:, :dim], 1.5).to_event(1))

    pair = pairs.vae(prior, likelihood, guide).requires_grad_(False)

    def moments(x: Tensor) -> Moments:
        found = rulers.quadrature(pair, x)
        return found.mean(), found.covariance()

    return Problem(pair, (features,), lambda x: rulers.quadrature(pair, x).log_evidence, moments)


def bent(dim: int, features: int) -> nn.Module:
    """A decoder that is not affine."""
    decoder = networks.MLP(dim, (8,), (features,), nn.Tanh)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter *= 1.5
    return decoder


def bits() -> Problem:
    return by_quadrature(priors.StandardNormal(1), likelihoods.Bernoulli(bent(1, 4)), 4, 1)


def sheet() -> Problem:
    likelihood = likelihoods.Normal(bent(2, 3), scale=0.7)
    return by_quadrature(priors.Mixture(2, 3), likelihood, 3, 2)


CONTINUOUS: dict[str, Callable[[], Problem]] = {
    "factor analysis": partial(ruler, "FactorAnalysis", (3,)),
    "state space": partial(ruler, "StateSpace", (3, 3)),
    "shared mean": shared_mean,
    "Gamma and Poisson": gamma_poisson,
    "1-D quadrature": bits,
    "2-D quadrature": sheet,
}
DISCRETE: dict[str, Callable[[], Problem]] = {
    "normal mixture": partial(ruler, "NormalMixture full", (3,), discrete=True),
    "hidden Markov": partial(ruler, "HiddenMarkov normal", (4, 3), discrete=True),
}
