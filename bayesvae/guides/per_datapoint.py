"""A free row for each datum, lambda_n: stochastic variational inference without a network."""

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import embedding

from bayesvae.core.distributions import pyro_ready
from bayesvae.core.programs import DATA_PLATE
from bayesvae.families import Family


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
