"""Counts."""

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.families import positive
from bayesvae.likelihoods.base import Likelihood, over_event


class Poisson(Likelihood):
    """Counts x with rates softplus(network) + 1e-6, ``(*, *event)``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> Poisson(nn.Linear(2, 64)).mean(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return over_event(dist.Poisson(positive(self.network(z))), z)
