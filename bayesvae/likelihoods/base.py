"""What all likelihoods share: a network inside, a mean and a draw."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution


def over_event(distribution: Distribution, z: Tensor) -> Distribution:
    """The distribution with every axis beyond those of z ``(*, d)`` as a part of the event."""
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
