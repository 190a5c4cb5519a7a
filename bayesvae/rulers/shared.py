"""A conjugate model with a latent that all data share: the ruler for shared latents.

    m ~ N(0, s^2),   z_n | m ~ N(m, a^2),   x_n | z_n ~ N(z_n, b^2),   n = 1 ... N

Given m the data are independent, log p(x_n | m) = log N(x_n; m, a^2 + b^2); without it they are
not, and only the whole set has an evidence: x ~ N(0, (a^2 + b^2) I + s^2 1 1').  The posteriors
are m | x ~ N(v sum_n x_n / (a^2 + b^2), v) with 1/v = 1/s^2 + N / (a^2 + b^2), and
z_n | m, x ~ N(u (m / a^2 + x_n / b^2), u) with 1/u = 1/a^2 + 1/b^2.

It is the hierarchical normal model of "Bayesian Data Analysis", 5.4 (Gelman et al., 2013), with
known variances.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesvae.core.pair import Pair
from bayesvae.core.programs import DATA_PLATE, Program
from bayesvae.families import positive, raw_of


class SharedMean(nn.Module):
    """Scalar data around latents around one latent mean; sites ``mean``, ``z`` and ``x``.

    Args:
        mean_scale: s > 0.
        latent_scale: a > 0.
        noise_scale: b > 0.

    Raises:
        ValueError: if a scale is not positive.

    Example:
        >>> ruler = SharedMean()
        >>> x = torch.tensor([1.0, -1.0])
        >>> ruler.log_evidence(x, torch.tensor(0.0)).shape, ruler.log_evidence_of_set(x).shape
        (torch.Size([2]), torch.Size([]))
    """

    def __init__(
        self, mean_scale: float = 1.0, latent_scale: float = 0.8, noise_scale: float = 0.5
    ) -> None:
        super().__init__()
        scales = torch.tensor([mean_scale, latent_scale, noise_scale])
        if not (scales > 0).all():
            raise ValueError(
                "SharedMean needs positive scales; got "
                f"{mean_scale:.3g}, {latent_scale:.3g} and {noise_scale:.3g}. Use standard "
                "deviations."
            )
        self.raw_scales = nn.Parameter(raw_of(scales))

    @property
    def scales(self) -> Tensor:
        """s, a and b, ``(3,)``."""
        return positive(self.raw_scales)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B,)``; returns x, drawn if a handler asks."""
        s, a, b = self.scales
        mean = pyro.sample("mean", dist.Normal(torch.zeros_like(s), s))
        with pyro.plate(DATA_PLATE, len(x)):
            z = pyro.sample("z", dist.Normal(mean, a))
            return pyro.sample("x", dist.Normal(z, b), obs=x)

    def log_evidence(self, x: Tensor, mean: Tensor) -> Tensor:
        """log p(x_n | mean) exactly, nats, ``(B,)`` for x ``(B,)`` and a mean ``()``."""
        _, a, b = self.scales
        return dist.Normal(mean, torch.hypot(a, b)).log_prob(x)

    def log_evidence_of_set(self, x: Tensor) -> Tensor:
        """log p(x_1, ..., x_N) exactly, nats, ``()``, for the whole set x ``(N,)``."""
        s, a, b = self.scales
        spread = (a**2 + b**2).expand(len(x))
        common = s.expand(len(x), 1)
        return dist.LowRankMultivariateNormal(torch.zeros_like(x), common, spread).log_prob(x)

    def posterior_of_mean(self, x: Tensor) -> dist.Normal:
        """p(mean | x_1, ..., x_N) exactly, batch shape ``()``, for the whole set x ``(N,)``."""
        s, a, b = self.scales
        spread = a**2 + b**2
        precision = 1 / s**2 + len(x) / spread
        return dist.Normal(x.sum() / spread / precision, precision.rsqrt())

    def posterior(self, x: Tensor, mean: Tensor) -> dist.Normal:
        """p(z_n | mean, x_n) exactly, batch shape ``(B,)``, for x ``(B,)`` and a mean ``()``."""
        _, a, b = self.scales
        precision = 1 / a**2 + 1 / b**2
        return dist.Normal((mean / a**2 + x / b**2) / precision, precision.rsqrt())

    def exact_guide(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """The guide that samples from the exact posterior, if the batch is the whole set."""
        mean = pyro.sample("mean", self.posterior_of_mean(x))
        with pyro.plate(DATA_PLATE, len(x)):
            return pyro.sample("z", self.posterior(x, mean))

    def pair(self, guide: Program | None = None) -> Pair:
        """The program with a guide.

        Args:
            guide: program that samples ``mean`` and, in the data plate, ``z``; None takes the
                exact posterior of the batch as the whole set.
        """
        return Pair(self, self.exact_guide if guide is None else guide)
