"""The plain autoencoder as a pair: the same networks, no noise in the guide, no prior.

Two parts of the variational autoencoder are exchanged.  The prior becomes flat, log p(z) = 0 on
all of R^d, which no normalisation makes a distribution; the guide becomes a point mass at the
encoder's output, whose log-density counts as 0 there.  What is left of the ELBO is

    log p(x | z = f(x)),

and under a normal likelihood with a fixed scale s that is squared error in other units,

    -log p(x | z)  =  |x - mean(z)|^2 / (2 s^2)  +  D/2 log(2 pi s^2),

so that `fit` trains an autoencoder without knowing it.  The number is a bound of nothing: a flat
prior has no evidence, and a point mass no density.  `log_evidence` therefore refuses the pair, and
`generate.samples` too, for an autoencoder says nothing of where to decode from.

`path_changes` measures, of any pair, how evenly its decoder moves between two codes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.distributions import innermost
from bayesvae.core.pair import Pair
from bayesvae.families import Family
from bayesvae.guides import Amortized
from bayesvae.pairs.layered import vae


class Flat(nn.Module):
    """The improper prior log p(z) = 0 on R^d: no constraint on z, and nothing to sample from.

    Not for models whose evidence is asked for: they have none.

    Args:
        dim: d, the number of latents of a datum.

    Example:
        >>> Flat(2)().log_prob(torch.tensor([3.0, 400.0]))
        tensor(0.)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("nowhere", torch.full((dim,), torch.nan), persistent=False)

    def forward(self) -> Distribution:
        """The distribution over z ``(d,)``; its draws are NaN, as torch's undefined means are."""
        # Pyro's ImproperUniform raises on a draw, but programs are also run forwards on their own
        # to show their parameters, and its densities stay on the CPU.
        return dist.Delta(self.nowhere, event_dim=1).mask(False)


@dataclass(frozen=True)
class PointMass(Family):
    """All of the mass at one point: a row is the latent itself.

    Not for `log_evidence` or `compare`, which need a density.

    Attributes:
        dim: d, the number of latents of a datum.

    Example:
        >>> PointMass(2)(torch.tensor([3.0, 4.0])).sample()
        tensor([3., 4.])
    """

    dim: int

    @property
    def size(self) -> int:
        """The length of a row, d."""
        return self.dim

    def __call__(self, rows: Tensor) -> Distribution:
        """Rows ``(*, d)`` to point masses with batch shape ``(*)``."""
        return dist.Delta(rows, event_dim=1)

    def rows(self, distribution: Distribution) -> Tensor:
        """The mean of a distribution over ``(d,)``."""
        return distribution.mean

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a point mass over ``(d,)``."""
        return distribution.event_shape == (self.dim,) and isinstance(
            innermost(distribution), dist.Delta
        )


def autoencoder(likelihood: nn.Module, encoder: nn.Module, dim: int) -> Pair:
    """The pair that `fit` trains as an autoencoder: decoder in the likelihood, encoder as guide.

    Args:
        likelihood: ``likelihood(z)`` is the distribution over x, as in `pairs.vae`; a
            `likelihoods.Normal` of fixed scale makes the loss squared error.
        encoder: maps ``(B, *event)`` to codes ``(B, d)``.
        dim: d.

    Returns:
        The pair, with sites ``z`` and ``x``.

    Example:
        >>> from bayesvae import check_pair, likelihoods, networks
        >>> likelihood = likelihoods.Normal(networks.MLP(2, (16,), 5), scale=1.0)
        >>> pair = autoencoder(likelihood, networks.MLP(5, (16,), 2), 2)
        >>> print(check_pair(pair, torch.zeros(4, 5)))
        program  site  kind      plates   batch  event  value   log-density
        guide    z     latent    data[4]  (4,)   (2,)   (4, 2)  (4,)
        model    z     latent    data[4]  (4,)   (2,)   (4, 2)  (4,)
        model    x     observed  data[4]  (4,)   (5,)   (4, 5)  (4,)
    """
    return vae(Flat(dim), likelihood, Amortized(encoder, PointMass(dim)))


class Changes(NamedTuple):
    """How E[x | z] changes along paths between codes.

    Attributes:
        steps: norm of each change from one point to the next, ``(n, steps - 1)``, units of x.
        detour: length of the path over the distance of its ends, ``(n,)``; 1 is straight.
        jump: largest change over the mean one, ``(n,)``; 1 is even, steps - 1 all at once.
    """

    steps: Tensor
    detour: Tensor
    jump: Tensor


def path_changes(means: Tensor) -> Changes:
    """How evenly and how directly E[x | z] changes along paths, each in proportion to its own.

    A decoder that knows only a few islands of the latent space shows it in a long ``detour`` or a
    large ``jump``.  The latter grows with the number of steps until the path is resolved: compare
    pairs at the same number.

    Args:
        means: ``(n, steps, *event)``, from `generate.interpolations`.

    Returns:
        The changes; ``detour`` is not finite where both ends decode alike.

    Example:
        >>> straight = torch.linspace(0, 1, 5)[None, :, None] * torch.ones(3)
        >>> changes = path_changes(straight)
        >>> changes.detour, changes.jump
        (tensor([1.]), tensor([1.]))
    """
    flat = means.flatten(2)
    steps = flat.diff(dim=1).norm(dim=-1)
    chord = (flat[:, -1] - flat[:, 0]).norm(dim=-1)
    return Changes(steps, steps.sum(1) / chord, steps.amax(1) / steps.mean(1))
