"""Priors: modules whose call, ``prior()``, is the distribution p(z) over one datum's latents.

Any module that returns a distribution will do (a ``zuko`` flow is one); nothing to inherit.  The
prior is part of the generative model: its parameters are learned by the same bound as the
decoder's. At fixed decoder and guide the best prior for the ELBO is the aggregated posterior,
sum_n q(z | x_n) / N, which `Mixture` and `Vamp` approximate.
"""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, transform_to

from bayesvae.families import Family, MultivariateNormal
from bayesvae.families import Normal as DiagonalNormal


class StandardNormal(nn.Module):
    """N(0, I): nothing to learn.

    Args:
        dim: d, the number of latents.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return dist.Normal(self.loc, self.scale).to_event(1)


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


class Vamp(nn.Module):
    """1/C sum_c q(z | u_c): the guide's own posterior at learned pseudo-inputs u_c.

    "VAE with a VampPrior" (Tomczak and Welling, 2018).

    Args:
        encoder: an object with ``posterior(x) -> Distribution``, such as the pair's `Amortized`
            guide; shared with the guide, it gets gradients from both.
        data: ``(N, *event)``; the pseudo-inputs start at C of its rows, evenly spread over them.
        components: C, the number of pseudo-inputs.
        constraint: where the pseudo-inputs live: `constraints.unit_interval` for images in [0, 1],
            `constraints.real` for real data; None picks the first if ``data`` lies in [0, 1].

    Raises:
        TypeError: if the encoder has no ``posterior``.
        ValueError: if there are fewer data than components.

    Example:
        >>> from bayesvae import families, guides, networks
        >>> guide = guides.Amortized(networks.MLP(4, (8,), 6), families.Normal(3))
        >>> Vamp(guide, torch.rand(100, 4), components=10)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        encoder: nn.Module,
        data: Tensor,
        components: int = 100,
        constraint: constraints.Constraint | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(encoder, "posterior"):
            raise TypeError(
                f"Vamp needs an encoder with `posterior(x)`; got {type(encoder).__name__}. Pass "
                "the guides.Amortized of the same pair."
            )
        if not 1 <= components <= len(data):
            raise ValueError(
                f"Vamp needs 1 <= components <= number of data; got components={components} for "
                f"{len(data)} data."
            )
        if constraint is None:
            unit = bool(((data >= 0) & (data <= 1)).all())
            constraint = constraints.unit_interval if unit else constraints.real
        self.encoder, self.constrain = encoder, transform_to(constraint)
        start = data[torch.linspace(0, len(data) - 1, components).long()]
        if constraint is constraints.unit_interval:
            # The logistic map reaches 0 and 1 only at infinity; begin where gradients still flow.
            start = start.clamp(0.05, 0.95)
        self.raw_inputs = nn.Parameter(self.constrain.inv(start).clone())
        self.register_buffer("logits", torch.zeros(components))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, ``(C, *event)``."""
        return self.constrain(self.raw_inputs)

    def forward(self) -> Distribution:
        """p(z), event shape ``(d,)``."""
        return dist.MixtureSameFamily(
            dist.Categorical(logits=self.logits), self.encoder.posterior(self.pseudo_inputs)
        )
