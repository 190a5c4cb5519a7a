"""Distributions as Pyro wraps them, what is inside, and means under them."""

from collections.abc import Callable

import torch
from pyro.distributions.torch_distribution import MaskedDistribution, TorchDistributionMixin
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent
from torch.distributions.constraints import Constraint

from bayesvae.compiler import argument_checks_kept

with argument_checks_kept():
    from pyro.contrib.zuko import ZukoToPyro


def pyro_ready(distribution: Distribution) -> Distribution:
    """The distribution as ``pyro.sample`` takes it: torch's and zuko's are wrapped, Pyro's kept.

    Example:
        >>> type(pyro_ready(torch.distributions.Normal(0.0, 1.0))).__name__
        'ZukoToPyro'
    """
    if isinstance(distribution, TorchDistributionMixin):
        return distribution
    return ZukoToPyro(distribution)


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution that `pyro_ready` wrapped, or itself."""
    return distribution.dist if isinstance(distribution, ZukoToPyro) else distribution


def innermost(distribution: Distribution) -> Distribution:
    """The distribution inside a wrapper and any ``Independent``."""
    distribution = unwrapped(distribution)
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def support_of(distribution: Distribution) -> Constraint | None:
    """The support, None where the distribution states none (a flow, say)."""
    try:
        return unwrapped(distribution).support
    except NotImplementedError:
        return None


def bare(support: Constraint) -> Constraint:
    """The constraint on a single entry, inside those that gather entries into events."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def mean_of(distribution: Distribution) -> Tensor | None:
    """The mean, of levels 0 ... C - 1 the expected level; None where none is known (a flow, say).

    Example:
        >>> mean_of(Categorical(torch.tensor([0.5, 0.0, 0.5])))
        tensor(1.)
    """
    base = innermost(distribution)
    if isinstance(base, Categorical):
        return base.probs @ torch.arange(base.probs.shape[-1]).to(base.probs)
    try:
        return unwrapped(distribution).mean
    except NotImplementedError:
        return None


def centre_of(distribution: Distribution) -> Tensor | None:
    """The mean, if it is a value that draws could have: None for discrete ones as well.

    Example:
        >>> centre_of(Categorical(torch.ones(3))) is None
        True
    """
    support = support_of(distribution)
    discrete = support is not None and support.is_discrete
    return None if discrete else mean_of(distribution)


def pathwise_mean(
    integrand: Callable[[Tensor], Tensor], q: Distribution, particles: int
) -> Tensor:
    """An unbiased estimate of E_q f, differentiable in what makes q.

    A distribution may offer ``weighted_rsample(particles)``, draws ``(K, B, d)`` and weights
    ``(K, B)`` that sum to one over K and carry a gradient as well (see
    `bayesvae.families.mixture`); else the mean of ``rsample`` is taken.

    Args:
        integrand: f, ``(K, B, d)`` to ``(K, B)``.
        q: batch shape ``(B,)``.
        particles: draws a datum.

    Returns:
        ``(B,)``.

    Example:
        >>> q = torch.distributions.Normal(torch.zeros(3, 2), 1.0)
        >>> pathwise_mean(lambda u: u.sum(-1), q, particles=5).shape
        torch.Size([3])
    """
    unmasked = q.base_dist if isinstance(q, MaskedDistribution) else q
    if not hasattr(unmasked, "weighted_rsample"):
        return integrand(q.rsample((particles,))).mean(0)
    u, weights = unmasked.weighted_rsample(particles)
    return (weights * integrand(u)).sum(0)
