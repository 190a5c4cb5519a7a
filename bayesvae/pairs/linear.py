"""Probabilistic PCA: the pair whose every quantity has a closed form, and so the tests' ruler.

    z ~ N(0, I_d),   x | z ~ N(W z + m, s^2 I_D)
    x ~ N(m, W W' + s^2 I),   z | x ~ N(M^-1 W'(x - m) / s^2, M^-1),   M = I + W'W / s^2

The posterior is the same normal for every datum up to its mean.  The best diagonal normal has
precisions M_ii and misses log p(x) by KL = (sum_i log M_ii - log det M) / 2, which is zero if and
only if the columns of W are orthogonal.  "Probabilistic Principal Component Analysis" (Tipping and
Bishop, 1999).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.pair import Pair
from bayesvae.core.programs import DATA_PLATE, Program
from bayesvae.families import positive, raw_of


class PPCA(nn.Module):
    """The linear-Gaussian generative program with its closed forms.

    Args:
        weight: W, ``(D, d)``.
        loc: m, ``(D,)``.
        scale: s > 0.

    Example:
        >>> model = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 0.5)
        >>> model.log_evidence(torch.zeros(2, 3)).shape
        torch.Size([2])
    """

    def __init__(self, weight: Tensor, loc: Tensor, scale: float | Tensor) -> None:
        super().__init__()
        scale = torch.as_tensor(scale, dtype=weight.dtype)
        if weight.dim() != 2 or loc.shape != weight.shape[:1] or scale <= 0:
            raise ValueError(
                "PPCA needs weight (D, d), loc (D,) and scale > 0; got "
                f"{tuple(weight.shape)}, {tuple(loc.shape)} and {scale.item():.3g}."
            )
        self.weight, self.loc = nn.Parameter(weight.clone()), nn.Parameter(loc.clone())
        self.raw_scale = nn.Parameter(raw_of(scale))

    @classmethod
    def maximum_likelihood(cls, x: Tensor, dim: int) -> "PPCA":
        """The closed-form fit: s^2 the mean discarded eigenvalue, W = U (L - s^2 I)^(1/2).

        Args:
            x: data ``(N, D)``.
            dim: d < D.

        Raises:
            ValueError: if ``dim`` is not below D.
        """
        if x.dim() != 2 or not 0 < dim < x.shape[1]:
            raise ValueError(f"PPCA needs x (N, D) and 0 < dim < D; got {tuple(x.shape)}, {dim}.")
        loc = x.mean(0)
        values, vectors = torch.linalg.eigh((x - loc).T @ (x - loc) / len(x))
        noise = values[:-dim].mean()
        weight = vectors[:, -dim:] * (values[-dim:] - noise).clamp_min(0).sqrt()
        return cls(weight, loc, noise.sqrt())

    @property
    def scale(self) -> Tensor:
        """s, ``()``."""
        return positive(self.raw_scale)

    @property
    def precision(self) -> Tensor:
        """M, the posterior's precision, ``(d, d)``."""
        d = self.weight.shape[1]
        return torch.eye(d).to(self.weight) + self.weight.T @ self.weight / self.scale**2

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B, D)``."""
        zero = self.weight.new_zeros(self.weight.shape[1])
        with pyro.plate(DATA_PLATE, len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            mean = z @ self.weight.T + self.loc
            return pyro.sample("x", dist.Normal(mean, self.scale).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, ``(B,)`` nats, for x ``(B, D)``."""
        noise = self.scale**2 * torch.ones_like(self.loc)
        return dist.LowRankMultivariateNormal(self.loc, self.weight, noise).log_prob(x)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """p(z | x) exactly for x ``(B, D)``: full covariance, batch shape ``(B,)``."""
        cholesky = torch.linalg.cholesky(self.precision)
        projected = (x - self.loc) @ self.weight / self.scale**2
        loc = torch.cholesky_solve(projected.unsqueeze(-1), cholesky).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=self.precision)

    def diagonal_gap(self) -> Tensor:
        """log p(x) minus the best bound of a diagonal normal: ``()`` nats, equal for all data."""
        return (self.precision.diagonal().log().sum() - torch.logdet(self.precision)) / 2

    def exact_guide(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """The guide that samples z from the exact posterior."""
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample("z", self.posterior(x))


def ppca(model: PPCA, guide: Program | None = None) -> Pair:
    """The linear-Gaussian pair.

    Args:
        model: the generative program.
        guide: program that samples the site ``z``; None takes the exact posterior.

    Returns:
        The pair, with sites ``z`` and ``x``.

    Example:
        >>> pair = ppca(PPCA.maximum_likelihood(torch.randn(100, 5), 2))
    """
    return Pair(model, model.exact_guide if guide is None else guide)
