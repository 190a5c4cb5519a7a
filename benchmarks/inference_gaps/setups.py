"""The pairs that are trained: one plain VAE, and three that differ from it in one part each.

The plain one is that of "Inference Suboptimality in Variational Autoencoders" (Cremer, Li,
Duvenaud, 2018): 784-200-200-50 with ELU, the decoder mirrored, a diagonal normal as posterior.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from bayesvae import Pair, data, families, guides, likelihoods, networks, pairs, priors
from bayesvae.data import Splits
from bayesvae.families import Family

FLOW = partial(families.Flow, transforms=2)
"""Two couplings on a full covariance; all of their weights come from the encoder."""
READERS: dict[str, Callable[[str | None], Splits]] = {
    "mnist": data.mnist,
    "fashion-mnist": data.fashion_mnist,
}


class Setup(NamedTuple):
    """What tells a set-up from another one.

    Attributes:
        title: what to call it.
        encoder: hidden widths.
        decoder: hidden widths.
        family: makes the posterior's family from the number of latents.
    """

    title: str
    encoder: tuple[int, ...] = (200, 200)
    decoder: tuple[int, ...] = (200, 200)
    family: Callable[[int], Family] = families.Normal

    @property
    def searched(self) -> tuple[Callable[[int], Family], ...]:
        """Families whose optimum is looked for, from narrow to wide, the set-up's own among them.

        Example:
            >>> len(SETUPS["standard"].searched), len(SETUPS["flow"].searched)
            (2, 3)
        """
        normals = (families.Normal, families.MultivariateNormal)
        return normals if self.family in normals else (*normals, self.family)


SETUPS = {
    "standard": Setup("standard"),
    "encoder": Setup("larger encoder", encoder=(500, 500)),
    "decoder": Setup("larger decoder", decoder=(500, 500)),
    "flow": Setup("flow posterior", family=FLOW),
}


def make_pair(setup: Setup, x: Tensor, latent: int) -> Pair:
    """An untrained pair.

    Args:
        setup: its widths and family.
        x: training data in [0, 1], ``(N, *event)``, for the shape and the first output bias.
        latent: d.

    Example:
        >>> import torch
        >>> pair = make_pair(SETUPS["encoder"], torch.rand(9, 1, 8, 8), latent=3)
        >>> sorted({parameter.shape[0] for parameter in pair.parameters()})
        [6, 64, 200, 500]
    """
    family, bias = setup.family(latent), networks.data_logits(x)
    decoder = networks.MLP(latent, setup.decoder, x.shape[1:], nn.ELU, bias)
    encoder = networks.MLP(x.shape[1:], setup.encoder, family.size, nn.ELU)
    return pairs.vae(
        priors.StandardNormal(latent),
        likelihoods.Bernoulli(decoder),
        guides.Amortized(encoder, family),
    )
