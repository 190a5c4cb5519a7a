"""One network for all data, lambda_n = f_phi(x_n): what the encoder of a VAE is."""

import pyro
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.distributions import pyro_ready
from bayesvae.core.programs import DATA_PLATE
from bayesvae.families import Family


class Amortized(nn.Module):
    """lambda_n = f_phi(x_n): one network for all data ("Auto-Encoding Variational Bayes", 2014).

    Args:
        network: maps ``(B, *event)`` to rows ``(B, family.size)``.
        family: turns rows into distributions.
        site: name of the latent.

    Example:
        >>> import torch
        >>> from bayesvae import families, networks
        >>> guide = Amortized(networks.MLP(4, (8,), 6), families.Normal(3))
        >>> guide.posterior(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """

    def __init__(self, network: nn.Module, family: Family, site: str = "z") -> None:
        super().__init__()
        self.network, self.family, self.site = network, family, site

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """q(z | x) for each row of ``x`` ``(B, *event)``.

        Raises:
            ValueError: if the network's output is not one row of the family a datum.
        """
        return self.family(self.rows(x))

    def rows(self, x: Tensor) -> Tensor:
        """lambda for each row of ``x``, ``(B, family.size)``."""
        rows = self.network(x)
        if rows.shape[-1] != self.family.size:
            raise ValueError(
                f"{self.family} needs rows of {self.family.size} numbers; the network gives "
                f"{tuple(rows.shape)}. Build the network with outputs=family.size."
            )
        return rows

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples z ``(B, d)`` inside the data plate."""
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, pyro_ready(self.posterior(x, index)))
