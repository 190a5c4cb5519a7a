"""Guides: where the variational parameters lambda_n of a datum come from.

Variational inference asks for one q_{lambda_n}(z) a datum.  `PerDatapoint` keeps every lambda_n as
a free row; `Amortized` lets one network predict it, lambda_n = f_phi(x_n), which is what the
encoder of a VAE is.  The family, and with it the best bound that could be reached, is the same
in both, so the difference between them is the price of amortization and nothing else.

A guide is a Pyro program of ``(x, index)``; ``guide.posterior(x, index)`` is the distribution that
it samples from.
"""

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import embedding

from bayesvae.distributions import pyro_ready
from bayesvae.families import Family
from bayesvae.programs import DATA_PLATE


class Amortized(nn.Module):
    """lambda_n = f_phi(x_n): one network for all data ("Auto-Encoding Variational Bayes", 2014).

    Args:
        network: maps ``(B, *event)`` to rows ``(B, family.size)``.
        family: turns rows into distributions.
        site: name of the latent.

    Example:
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
        rows = self.network(x)
        if rows.shape[-1] != self.family.size:
            raise ValueError(
                f"{self.family} needs rows of {self.family.size} numbers; the network gives "
                f"{tuple(rows.shape)}. Build the network with outputs=family.size."
            )
        return self.family(rows)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples z ``(B, d)`` inside the data plate."""
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, pyro_ready(self.posterior(x, index)))


class PerDatapoint(nn.Module):
    """lambda_n free: one row a datum, looked up by ``index`` (stochastic variational inference).

    While a row's datum is not in the batch the row gets no gradient; `fit` also keeps optimiser
    momentum from moving it, by training rows through sparse gradients.

    Args:
        size: N, the number of data.
        family: turns rows into distributions.
        site: name of the latent.

    Attributes:
        rows: lambda, ``(N, family.size)``.
        sparse: whether ``rows`` gets sparse gradients, as in ``torch.nn.Embedding``.

    Example:
        >>> from bayesvae import families
        >>> guide = PerDatapoint(100, families.Normal(3))
        >>> guide.posterior(None, torch.tensor([7, 42])).batch_shape
        torch.Size([2])
    """

    def __init__(self, size: int, family: Family, site: str = "z") -> None:
        super().__init__()
        self.family, self.site, self.sparse = family, site, False
        self.rows = nn.Parameter(torch.zeros(size, family.size))

    def posterior(self, x: Tensor | None, index: Tensor | None = None) -> Distribution:
        """q_n(z) for the data at positions ``index`` ``(B,)``.

        Raises:
            ValueError: without an index, or with one that is no position among the N data.
        """
        if index is None:
            raise ValueError(
                "PerDatapoint needs `index`, the data's positions; got None. Use a loader from "
                "bayesvae.data, or Amortized(...)."
            )
        try:
            return self.family(embedding(index, self.rows, sparse=self.sparse))
        except IndexError as error:
            raise ValueError(
                f"PerDatapoint holds rows for {len(self.rows)} data; got positions from "
                f"{int(index.min())} to {int(index.max())}. Unseen data have no row: use "
                "Amortized(...), or optimise their rows with compare(...)."
            ) from error

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples z ``(B, d)`` inside the data plate."""
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, pyro_ready(self.posterior(x, index)))
