"""Levels."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.likelihoods.base import Likelihood, over_event


class Categorical(Likelihood):
    """x in levels 0 ... C - 1 (as numbers) with logits from the network ``(*, *event, C)``.

    Example:
        >>> from bayesvae.networks import MLP
        >>> Categorical(MLP(2, (), (64, 17)))(torch.zeros(5, 2)).event_shape
        torch.Size([64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return over_event(dist.Categorical(logits=self.network(z)), z)

    def mean(self, z: Tensor) -> Tensor:
        """The expected level, ``(*, *event)``."""
        probabilities = self.network(z).softmax(-1)
        return probabilities @ torch.arange(probabilities.shape[-1]).to(probabilities)
