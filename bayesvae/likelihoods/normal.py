"""Real numbers, with a scale that is given, learned or predicted."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.families import positive, raw_of
from bayesvae.likelihoods.base import Likelihood, over_event


class Normal(Likelihood):
    """Real x with means from the network and a spherical or predicted scale.

    With a given scale, -log p(x | z) is squared error times 1 / (2 scale^2) plus a constant; a
    large given scale collapses latents, so learn it ("Don't Blame the ELBO!", Lucas et al.,
    2019).

    Args:
        network: maps z ``(*, d)`` to means ``(*, *event)``.
        scale: the standard deviation, one for all entries of x: a positive number to fix it, a
            network from z to raw scales ``(*, *event)`` to predict it, None to learn one number.
        start: where a learned scale starts; the deviation of the data is a good place, for a
            scale far too large teaches the means little.

    Raises:
        ValueError: if a given scale or start is not positive.

    Example:
        >>> likelihood = Normal(nn.Linear(2, 64), scale=0.1)
        >>> likelihood(torch.zeros(5, 2)).stddev.unique()
        tensor([0.1000])
    """

    def __init__(
        self, network: nn.Module, scale: float | nn.Module | None = None, start: float = 1.0
    ) -> None:
        super().__init__(network)
        if isinstance(scale, (int, float)) and scale <= 0:
            raise ValueError(f"Normal needs scale > 0; got {scale}. Use None to learn it.")
        if start <= 0:
            raise ValueError(f"Normal needs start > 0; got {start}. Leave it out for 1.")
        self.scale_network = scale if isinstance(scale, nn.Module) else None
        if scale is None:
            self.raw_scale = nn.Parameter(raw_of(torch.tensor(float(start))))
        elif self.scale_network is None:
            self.register_buffer("fixed_scale", torch.tensor(float(scale)))
        self.learned = scale is None

    def scale(self, z: Tensor) -> Tensor:
        """The standard deviation given z ``(*, d)``: ``()`` if constant, else ``(*, *event)``."""
        if self.scale_network is not None:
            return positive(self.scale_network(z))
        return positive(self.raw_scale) if self.learned else self.fixed_scale

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return over_event(dist.Normal(self.network(z), self.scale(z)), z)
