"""A normal prior with learned mean and full covariance."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.families import Family, MultivariateNormal


def _standard_rows(family: Family, dim: int) -> Tensor:
    return family.rows(dist.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1))


class Normal(nn.Module):
    """N(m, S) with learned mean and full covariance; starts at N(0, I).

    A decoder whose first layer is affine can absorb m and S, so that it gains nothing over
    `StandardNormal` but an easier optimisation.

    Args:
        dim: d, the number of latents.

    Example:
        >>> Normal(3)().covariance_matrix.shape
        torch.Size([3, 3])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.family = MultivariateNormal(dim)
        self.row = nn.Parameter(_standard_rows(self.family, dim))

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return self.family(self.row)
