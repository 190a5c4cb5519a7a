"""Bayes' rule where everything is normal and linear.

    z ~ N(m, P^-1),   x | z ~ N(W z + c, diag(s^2))
    z | x ~ N(m + M^-1 W' diag(s^-2) (x - W m - c), M^-1),   M = P + W' diag(s^-2) W

Only the mean depends on x.  "Pattern Recognition and Machine Learning", 2.3.3 (Bishop, 2006).
"""

import pyro.distributions as dist
import torch
from torch import Tensor


def conditioned(
    prior: dist.MultivariateNormal, weight: Tensor, scales: Tensor, residual: Tensor
) -> dist.MultivariateNormal:
    """p(z | x) exactly.

    Args:
        prior: p(z), event shape ``(d,)``.
        weight: W, ``(D, d)``.
        scales: s, ``(D,)``.
        residual: x - E[x], ``(B, D)``.

    Returns:
        A normal over ``(d,)`` with full covariance and batch shape ``(B,)``.

    Example:
        >>> prior = dist.MultivariateNormal(torch.zeros(1), torch.eye(1))
        >>> conditioned(prior, torch.ones(1, 1), torch.ones(1), torch.tensor([[2.0]])).mean
        tensor([[1.]])
    """
    scaled = weight / scales.unsqueeze(-1)
    precision = prior.precision_matrix + scaled.T @ scaled
    projected = (residual / scales) @ scaled
    shift = torch.cholesky_solve(projected.mT, torch.linalg.cholesky(precision)).mT
    return dist.MultivariateNormal(prior.loc + shift, precision_matrix=precision)
