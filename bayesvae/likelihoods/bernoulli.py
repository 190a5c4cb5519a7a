"""Bits."""

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.likelihoods.base import Likelihood, over_event


class Bernoulli(Likelihood):
    """Binary x with logits from the network ``(*, *event)``.

    Not for grey levels, on which its density is no density; binarise them, or use `Normal`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> Bernoulli(nn.Linear(2, 64))(torch.zeros(5, 2)).event_shape
        torch.Size([64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return over_event(dist.Bernoulli(logits=self.network(z)), z)
