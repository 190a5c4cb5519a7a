"""Latents in layers: p(x | z1) p(z1 | z2) ... p(zL), with a guide that climbs from the data.

One layer is the variational autoencoder ("Auto-Encoding Variational Bayes", Kingma and Welling,
2014; "Stochastic Backpropagation and Approximate Inference in Deep Generative Models", Rezende et
al., 2014).  With more, q(z1, ..., zL | x) = q(z1 | x) q(z2 | z1) ... q(zL | z_{L-1}).
"""

from collections.abc import Sequence

import pyro
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.core.distributions import pyro_ready
from bayesvae.core.pair import Pair
from bayesvae.core.programs import DATA_PLATE, Program
from bayesvae.guides import Amortized


def _names(layers: int) -> list[str]:
    return ["z"] if layers == 1 else [f"z{layer}" for layer in range(1, layers + 1)]


class LatentLayers(nn.Module):
    """The generative program: the prior on top, conditionals downwards, the likelihood of x.

    Sites are ``z`` for one layer, ``z1`` (next to the data) ... ``zL`` for more, and ``x``.

    Args:
        prior: ``prior()`` is p(zL).
        conditionals: ``conditionals[l - 1](z_{l+1})`` is p(z_l | z_{l+1}), lowest first.
        likelihood: ``likelihood(z1)`` is p(x | z1).
    """

    def __init__(
        self, prior: nn.Module, conditionals: Sequence[nn.Module], likelihood: nn.Module
    ) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood
        self.conditionals = nn.ModuleList(conditionals)

    @property
    def lowest(self) -> str:
        """The latent next to the data: ``z``, or ``z1`` of several."""
        return _names(len(self.conditionals) + 1)[0]

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on a batch ``(B, *event)``; returns x, drawn if a handler asks."""
        *lower, top = _names(len(self.conditionals) + 1)
        with pyro.plate(DATA_PLATE, len(x)):
            z = pyro.sample(top, pyro_ready(self.prior()))
            for name, conditional in zip(lower[::-1], reversed(self.conditionals), strict=True):
                z = pyro.sample(name, pyro_ready(conditional(z)))
            return pyro.sample("x", pyro_ready(self.likelihood(z)), obs=x)


class BottomUp(nn.Module):
    """q(z1 | x) q(z2 | z1) ... q(zL | z_{L-1}).

    Args:
        posteriors: one `guides.Amortized` a layer, lowest first; each reads the layer below.
    """

    def __init__(self, posteriors: Sequence[Amortized]) -> None:
        super().__init__()
        self.posteriors = nn.ModuleList(posteriors)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> Distribution:
        """q(zL | x) with the layers between at their means: an encoder for `priors.Vamp`."""
        below = x
        for layer in self.posteriors[:-1]:
            below = layer.posterior(below).mean
        return self.posteriors[-1].posterior(below)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Samples every layer inside the data plate; returns the top one ``(B, d_L)``."""
        z = x
        with pyro.plate(DATA_PLATE, len(x)):
            for name, layer in zip(_names(len(self.posteriors)), self.posteriors, strict=True):
                z = pyro.sample(name, pyro_ready(layer.posterior(z)))
        return z


def vae(prior: nn.Module, likelihood: nn.Module, guide: Program) -> Pair:
    """The pair p(z) p(x | z) and q(z | x).

    Args:
        prior: module with ``prior() -> Distribution`` over z.
        likelihood: module with ``likelihood(z) -> Distribution`` over x.
        guide: program that samples the site ``z``: `guides.Amortized`, `guides.PerDatapoint`, or
            your own.

    Returns:
        The pair, with sites ``z`` and ``x``.

    Example:
        >>> from bayesvae import families, guides, likelihoods, networks, priors
        >>> pair = vae(
        ...     priors.StandardNormal(2),
        ...     likelihoods.Bernoulli(networks.MLP(2, (16,), (1, 8, 8))),
        ...     guides.Amortized(networks.MLP((1, 8, 8), (16,), 4), families.Normal(2)),
        ... )
    """
    return Pair(LatentLayers(prior, (), likelihood), guide)


def hierarchical(
    prior: nn.Module,
    conditionals: Sequence[nn.Module],
    likelihood: nn.Module,
    posteriors: Sequence[Amortized],
) -> Pair:
    """The pair p(zL) ... p(z1 | z2) p(x | z1) and q(z1 | x) q(z2 | z1) ..., with L >= 2 layers.

    Args:
        prior: module with ``prior() -> Distribution`` over zL; any of `bayesvae.priors`.
        conditionals: L - 1 modules, ``conditionals[l - 1](z_{l+1})`` is p(z_l | z_{l+1}), lowest
            first; `likelihoods.Normal` with a scale network serves.
        likelihood: module with ``likelihood(z1) -> Distribution`` over x.
        posteriors: L amortized guides, lowest first; each reads the layer below.

    Returns:
        The pair, with sites ``z1`` ... ``zL`` and ``x``.

    Raises:
        ValueError: if the numbers of layers disagree.
    """
    if len(posteriors) != len(conditionals) + 1 or not conditionals:
        raise ValueError(
            "hierarchical needs L >= 2 posteriors and L - 1 conditionals; got "
            f"{len(posteriors)} and {len(conditionals)}. For one layer use vae(...)."
        )
    return Pair(LatentLayers(prior, conditionals, likelihood), BottomUp(posteriors))
