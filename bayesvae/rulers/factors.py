"""Factor analysis: as probabilistic PCA, but each feature has noise of its own size.

    z ~ N(0, I_d),   x | z ~ N(W z + m, diag(s^2)),   x ~ N(m, W W' + diag(s^2))

The posterior is a normal with the same full covariance (I + W' diag(s^-2) W)^-1 for every datum,
linear in x, so that an affine encoder with that covariance has no gap at all, and a diagonal one a
gap that is known.  "EM Algorithms for ML Factor Analysis" (Rubin and Thayer, 1982).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.programs import DATA_PLATE
from bayesvae.families import positive, raw_of
from bayesvae.rulers.conditioning import conditioned
from bayesvae.rulers.ruler import Ruler


class FactorAnalysis(Ruler):
    """The linear-Gaussian generative program with noise of each feature's own size.

    Args:
        weight: W, ``(D, d)``.
        loc: m, ``(D,)``.
        scales: s > 0, ``(D,)``.

    Raises:
        ValueError: for other shapes, or scales that are not positive.

    Example:
        >>> ruler = FactorAnalysis(torch.eye(3)[:, :1], torch.zeros(3), torch.tensor([1.0, 2, 3]))
        >>> x = torch.zeros(2, 3)
        >>> ruler.log_evidence(x).shape, ruler.posterior(x).mean.shape
        (torch.Size([2]), torch.Size([2, 1]))
    """

    def __init__(self, weight: Tensor, loc: Tensor, scales: Tensor) -> None:
        super().__init__()
        shaped = weight.dim() == 2 and loc.shape == scales.shape == weight.shape[:1]
        if not shaped or not (scales > 0).all():
            raise ValueError(
                "FactorAnalysis needs weight (D, d), loc (D,) and scales (D,) > 0; got "
                f"{tuple(weight.shape)}, {tuple(loc.shape)} and scales {tuple(scales.shape)} from "
                f"{scales.min().item():.3g}. For one scale use scale.expand(D)."
            )
        self.weight, self.loc = nn.Parameter(weight.clone()), nn.Parameter(loc.clone())
        self.raw_scales = nn.Parameter(raw_of(scales))

    @property
    def scales(self) -> Tensor:
        """s, ``(D,)``."""
        return positive(self.raw_scales)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B, D)``; returns x, drawn if a handler asks."""
        zero = self.weight.new_zeros(self.weight.shape[1])
        with pyro.plate(DATA_PLATE, len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            mean = z @ self.weight.T + self.loc
            return pyro.sample("x", dist.Normal(mean, self.scales).to_event(1), obs=x)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, ``(B,)`` nats, for x ``(B, D)``."""
        marginal = dist.LowRankMultivariateNormal(self.loc, self.weight, self.scales**2)
        return marginal.log_prob(x)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """p(z | x) exactly for x ``(B, D)``: full covariance, batch shape ``(B,)``."""
        identity = torch.eye(self.weight.shape[1]).to(self.weight)
        prior = dist.MultivariateNormal(identity.new_zeros(len(identity)), scale_tril=identity)
        return conditioned(prior, self.weight, self.scales, x - self.loc)
