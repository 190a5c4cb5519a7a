"""Normals with diagonal and with full covariance."""

from dataclasses import dataclass
from functools import lru_cache

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.core.distributions import innermost
from bayesvae.families.base import Family, positive, raw_of


@dataclass(frozen=True)
class Normal(Family):
    """Normal with diagonal covariance: the mean-field family of the textbook VAE.

    A row holds the loc and the raw scale, 2 ``dim`` numbers.

    Attributes:
        dim: d, the number of latents of a datum.

    Example:
        >>> import torch
        >>> Normal(3)(torch.zeros(5, 6)).event_shape
        torch.Size([3])
    """

    dim: int

    @property
    def size(self) -> int:
        """2 d."""
        return 2 * self.dim

    def __call__(self, rows: Tensor) -> Distribution:
        """Rows ``(*, 2 d)`` to a normal over ``(d,)`` with batch shape ``(*)``."""
        loc, raw = rows.chunk(2, -1)
        return dist.Normal(loc, positive(raw)).to_event(1)

    def rows(self, distribution: Distribution) -> Tensor:
        """Rows with the mean and standard deviation of a distribution over ``(d,)``."""
        return torch.cat([distribution.mean, raw_of(distribution.stddev)], -1)

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a diagonal normal over ``(d,)``."""
        return distribution.event_shape == (self.dim,) and isinstance(
            innermost(distribution), torch.distributions.Normal
        )


_CORRELATED = (
    torch.distributions.MultivariateNormal,
    torch.distributions.LowRankMultivariateNormal,
)


@lru_cache
def _places(dim: int, device: torch.device) -> Tensor:
    """Where in (entries of A, 0, 1) each entry of I + A is found, ``(d, d)``."""
    below = dim * (dim - 1) // 2
    places = torch.full((dim, dim), below, device=device)
    at = torch.tril_indices(dim, dim, -1, device=device)
    places[at[0], at[1]] = torch.arange(below, device=device)
    return places.fill_diagonal_(below + 1)


@dataclass(frozen=True)
class MultivariateNormal(Family):
    """Normal with full covariance, by its Cholesky factor L = diag(s) (I + A), A strictly lower.

    A row holds the loc, the d raw scales s and the d (d - 1) / 2 entries of A by rows.  A is free
    of units, so one step size suits latents of any scale.

    Attributes:
        dim: d, the number of latents of a datum.

    Example:
        >>> import torch
        >>> MultivariateNormal(3)(torch.zeros(5, 9)).scale_tril.shape
        torch.Size([5, 3, 3])
    """

    dim: int

    @property
    def size(self) -> int:
        """2 d + d (d - 1) / 2."""
        return 2 * self.dim + self.dim * (self.dim - 1) // 2

    def __call__(self, rows: Tensor) -> Distribution:
        """Rows ``(*, size)`` to a normal over ``(d,)`` with batch shape ``(*)``."""
        loc, raw, below = rows.split([self.dim, self.dim, self.size - 2 * self.dim], -1)
        zero_one = torch.tensor([0.0, 1.0]).to(rows).expand(*rows.shape[:-1], 2)
        entries = torch.cat([below, zero_one], -1)
        unit = entries[..., _places(self.dim, rows.device)]
        return dist.MultivariateNormal(loc, scale_tril=positive(raw).unsqueeze(-1) * unit)

    def rows(self, distribution: Distribution) -> Tensor:
        """Rows with the mean and covariance of a distribution over ``(d,)``.

        Distributions other than normals with correlations give their variances alone.
        """
        base = innermost(distribution)
        if isinstance(base, _CORRELATED):
            tril = base.scale_tril
        else:
            tril = torch.diag_embed(distribution.stddev)
        scale = tril.diagonal(dim1=-2, dim2=-1)
        at = torch.tril_indices(self.dim, self.dim, -1, device=tril.device)
        below = (tril / scale.unsqueeze(-1))[..., at[0], at[1]]
        return torch.cat([distribution.mean, raw_of(scale), below], -1)

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a multivariate normal over ``(d,)``."""
        return distribution.event_shape == (self.dim,) and isinstance(
            innermost(distribution), torch.distributions.MultivariateNormal
        )
