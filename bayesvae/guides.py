"""Guides: where the variational parameters lambda_n of a datum come from.

Variational inference asks for one q_{lambda_n}(z) a datum.  `PerDatapoint` keeps every lambda_n as
a free row; `Amortized` lets one network predict it, lambda_n = f_phi(x_n), which is what the
encoder of a VAE is.  The family, and with it the best bound that could be reached, is the same
in both, so the difference between them is the price of amortization and nothing else.

`SemiAmortized` lies between: it starts where the network says and climbs the datum's own bound for
a few steps.

A guide is a Pyro program of ``(x, index)``; ``guide.posterior(x, index)`` is the distribution that
it samples from.
"""

from functools import partial

import pyro
import torch
from pyro.poutine import block
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import embedding

from bayesvae import trace
from bayesvae.distributions import pathwise_mean, pyro_ready
from bayesvae.families import Family
from bayesvae.programs import DATA_PLATE, Program
from bayesvae.slopes import uphill


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


class SemiAmortized(nn.Module):
    """lambda_n = f_phi(x_n), then k steps uphill on the datum's own bound L(lambda_n).

    "Semi-Amortized Variational Autoencoders" (Kim et al., 2018); without differentiating through
    the steps, "Iterative refinement of the approximate posterior" (Hjelm et al., 2016).  The steps
    are taken as if trained: they follow noisy gradients of few draws, so k = 0 is exactly
    `Amortized`, and more steps help the average rather than every datum.

    Args:
        network: maps ``(B, *event)`` to rows ``(B, family.size)``.
        family: turns rows into distributions that can be drawn from reparameterised.
        model: the generative program, whose only local latent is ``site``.
        steps: k.
        rate: step size, in units of lambda for a gradient of one nat.
        particles: draws of a gradient; a mixture takes at least one of each component.
        through: whether gradients go through the steps. If not, the network is trained as though
            the steps were constants added to its output.
        site: name of the latent.

    Example:
        >>> from bayesvae import families, networks
        >>> from bayesvae.pairs import PPCA
        >>> model, family = PPCA(torch.eye(4)[:, :2], torch.zeros(4), 1.0), families.Normal(2)
        >>> guide = SemiAmortized(networks.MLP(4, (8,), family.size), family, model, steps=3)
        >>> guide.posterior(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        model: Program,
        steps: int = 5,
        *,
        rate: float = 0.1,
        particles: int = 4,
        through: bool = False,
        site: str = "z",
    ) -> None:
        super().__init__()
        if steps < 0 or particles < 1 or not rate > 0:
            raise ValueError(
                "SemiAmortized needs steps >= 0, particles >= 1 and rate > 0; got "
                f"{steps}, {particles} and {rate}."
            )
        self.start = Amortized(network, family, site)
        self._model = (model,)  # not a part of the guide: its parameters are the pair's
        self.steps, self.rate, self.particles, self.through = steps, rate, particles, through

    @property
    def family(self) -> Family:
        """What rows are turned into."""
        return self.start.family

    @property
    def site(self) -> str:
        """Name of the latent."""
        return self.start.site

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """q(z | x) after the steps, for each row of ``x`` ``(B, *event)``."""
        first = self.start.rows(x)
        rows, bound = first, partial(self._bound, x=x, index=index)
        with torch.enable_grad():
            for _ in range(self.steps):
                rows = uphill(rows, bound, self.rate, through=self.through)
        if self.through or not self.steps:
            return self.family(rows)
        return self.family(first + (rows - first).detach())

    def _bound(self, rows: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
        """Sum over data of L(lambda_n), by fresh draws of q."""
        q = self.family(rows)

        def log_weight(z: Tensor) -> Tensor:
            return self._log_joint(z, x, index) - q.log_prob(z)

        return pathwise_mean(log_weight, q, self.particles).sum()

    def _log_joint(self, z: Tensor, x: Tensor, index: Tensor | None) -> Tensor:
        """log p(x_n, z_n) of draws ``(K, B, d)``, which stand as further data: ``(K, B)``."""
        copies = [
            None if each is None else each.repeat(len(z), *(1,) * (each.dim() - 1))
            for each in (x, index)
        ]
        values = {self.site: z.flatten(0, 1)[None]}
        with block():  # handlers around the guide are not around this look at the model
            log_joint = trace.log_joint(self._model[0], values, *copies, particles=1)
        return log_joint.reshape(z.shape[:2])

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples z ``(B, d)`` inside the data plate."""
        posterior = self.posterior(x, index)
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample(self.site, pyro_ready(posterior))
