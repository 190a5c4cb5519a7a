"""A mixture over a variational family as a prior."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Distribution

from bayesvae.families import Family
from bayesvae.families import Normal as DiagonalNormal


class Mixture(nn.Module):
    """sum_c w_c q_{r_c}(z): a mixture over a family with trainable weights, means and covariances.

    Components start with unit variance at means drawn from N(0, I).  "Approximate Inference for
    Deep Latent Gaussian Mixtures" (Nalisnick et al., 2016) uses such a prior.

    Args:
        dim: d, the number of latents.
        components: C, the number of components.
        family: makes the components' family from d: `families.Normal` (diagonal covariances) or
            `families.MultivariateNormal` (full ones).

    Example:
        >>> from bayesvae import families
        >>> Mixture(3, components=5, family=families.MultivariateNormal)().event_shape
        torch.Size([3])
    """

    def __init__(
        self, dim: int, components: int = 10, family: Callable[[int], Family] = DiagonalNormal
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Mixture needs components >= 1; got {components}.")
        self.family = family(dim)
        self.logits = nn.Parameter(torch.zeros(components))
        start = dist.Normal(torch.randn(components, dim), torch.ones(dim)).to_event(1)
        self.rows = nn.Parameter(self.family.rows(start))

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), self.family(self.rows))
