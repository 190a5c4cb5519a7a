"""Normals whose covariance is diagonal but for a few directions.

    u = m + s (A e + e'),   e ~ N(0, I_r),   e' ~ N(0, I_d),   covariance s (I + A A') s

with 2 d + d r numbers where full covariance has 2 d + d (d - 1) / 2.  The gradient in A is zero
at A = 0, which is neither the best nor the worst there: rows start beside it.
"""

from dataclasses import dataclass
from functools import lru_cache

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.core.distributions import innermost
from bayesvae.families.base import Family, cosines, positive, raw_of

START = 0.05
"""Entries of A at the start, in standard deviations: correlations of a few thousandths."""


@lru_cache
def _start(dim: int, rank: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where A starts, ``(d, r)``."""
    return START * cosines(dim, torch.arange(rank, dtype=dtype, device=device))


@dataclass(frozen=True)
class LowRankNormal(Family):
    """Normal with covariance s (I + A A') s: a diagonal and r directions.

    A row holds the loc, the d raw scales s and what A, ``(d, r)`` by rows, has besides its start.
    A is free of units, so one step size suits latents of any scale.

    Attributes:
        dim: d, the number of latents of a datum.
        rank: r, the number of directions.

    Raises:
        ValueError: if the rank is not positive.

    Example:
        >>> import torch
        >>> LowRankNormal(5, rank=2)(torch.zeros(7, 20)).cov_factor.shape
        torch.Size([7, 5, 2])
    """

    dim: int
    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LowRankNormal needs rank >= 1; got {self.rank}. Use Normal for 0.")

    @property
    def size(self) -> int:
        """2 d + d r."""
        return (2 + self.rank) * self.dim

    def __call__(self, rows: Tensor) -> Distribution:
        """Rows ``(*, size)`` to a normal over ``(d,)`` with batch shape ``(*)``."""
        loc, raw, factor = rows.split([self.dim, self.dim, self.rank * self.dim], -1)
        scale = positive(raw)
        factor = factor.unflatten(-1, (self.dim, self.rank)) + self._start(rows)
        return dist.LowRankMultivariateNormal(
            loc, cov_factor=scale.unsqueeze(-1) * factor, cov_diag=scale.square()
        )

    def rows(self, distribution: Distribution) -> Tensor:
        """Rows with the mean and standard deviation of a distribution over ``(d,)``.

        Correlations are taken over from members alone.
        """
        if self.contains(distribution):
            base = innermost(distribution)
            scale = base.cov_diag.sqrt()
            factor = base.cov_factor / scale.unsqueeze(-1) - self._start(scale)
        else:
            scale = distribution.stddev
            start = self._start(scale)
            scale = scale / (1 + start.square().sum(-1)).sqrt()
            factor = torch.zeros_like(start).expand(*scale.shape, self.rank)
        return torch.cat([distribution.mean, raw_of(scale), factor.flatten(-2)], -1)

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a normal over ``(d,)`` with as many directions."""
        base = innermost(distribution)
        return (
            distribution.event_shape == (self.dim,)
            and isinstance(base, torch.distributions.LowRankMultivariateNormal)
            and base.cov_factor.shape[-1] == self.rank
        )

    def _start(self, like: Tensor) -> Tensor:
        return _start(self.dim, self.rank, like.dtype, like.device)
