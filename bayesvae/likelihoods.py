"""Likelihoods: ``likelihood(z)`` is the distribution p(x | z) over one datum's event.

The network is the decoder; what its output parametrises is the likelihood's business.  Every
axis of the network's output beyond z's leading dims belongs to the event.
``likelihood.mean(z)`` is E[x | z], in the units of x; ``likelihood.sample(z)`` is a draw, which
for real-valued data looks different from the mean: the noise is part of the model.

The same classes serve as conditionals p(z_l | z_{l+1}) between layers of latents.
"""

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.families import positive, raw_of


def _over_event(distribution: Distribution, z: Tensor) -> Distribution:
    return distribution.to_event(len(distribution.batch_shape) - (z.dim() - 1))


class Likelihood(nn.Module, ABC):
    """A conditional p(x | z) with a network inside; subclasses say which.

    Args:
        network: maps z ``(*, d)`` to the parameters of the event, ``(*, *event)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``: batch shape ``(*)``, event shape ``event``."""

    def mean(self, z: Tensor) -> Tensor:
        """E[x | z], ``(*, *event)``, in the units of x."""
        return self(z).mean

    def sample(self, z: Tensor) -> Tensor:
        """A draw of x given z, ``(*, *event)``, noise included; without gradient."""
        return self(z).sample()


class Bernoulli(Likelihood):
    """Binary x with logits from the network ``(*, *event)``.

    Not for grey levels, on which its density is no density; binarise them, or use `Normal`.

    Example:
        >>> Bernoulli(nn.Linear(2, 64))(torch.zeros(5, 2)).event_shape
        torch.Size([64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return _over_event(dist.Bernoulli(logits=self.network(z)), z)


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
        return _over_event(dist.Normal(self.network(z), self.scale(z)), z)


class Categorical(Likelihood):
    """x in levels 0 ... C - 1 (as numbers) with logits from the network ``(*, *event, C)``.

    Example:
        >>> from bayesvae.networks import MLP
        >>> Categorical(MLP(2, (), (64, 17)))(torch.zeros(5, 2)).event_shape
        torch.Size([64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return _over_event(dist.Categorical(logits=self.network(z)), z)

    def mean(self, z: Tensor) -> Tensor:
        """The expected level, ``(*, *event)``."""
        probabilities = self.network(z).softmax(-1)
        return probabilities @ torch.arange(probabilities.shape[-1]).to(probabilities)


class Poisson(Likelihood):
    """Counts x with rates softplus(network) + 1e-6, ``(*, *event)``.

    Example:
        >>> Poisson(nn.Linear(2, 64)).mean(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def forward(self, z: Tensor) -> Distribution:
        """p(x | z) for z ``(*, d)``."""
        return _over_event(dist.Poisson(positive(self.network(z))), z)
