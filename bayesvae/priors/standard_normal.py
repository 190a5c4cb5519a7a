"""The standard normal prior: the one that has nothing to learn."""

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Distribution


class StandardNormal(nn.Module):
    """N(0, I): nothing to learn.

    Args:
        dim: d, the number of latents.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return dist.Normal(self.loc, self.scale).to_event(1)
