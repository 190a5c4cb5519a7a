"""Draws of the model, ancestrally: the latents from the prior, x given the latents."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from bayesvae.core import programs, trace
from bayesvae.core.distributions import mean_of
from bayesvae.core.evaluation import evaluating
from bayesvae.core.pair import Pair, on_device_of
from bayesvae.generate.encoding import local_latents


class Samples(NamedTuple):
    """Draws from p(x, z).

    Attributes:
        latents: by site name, ``(n, *event)``.
        mean: E[x | z] of each, ``(n, *event)``, in the units of x.
        draw: x itself, noise included, ``(n, *event)``.
    """

    latents: dict[str, Tensor]
    mean: Tensor
    draw: Tensor


def samples(pair: Pair, count: int, event: Sequence[int]) -> Samples:
    """Draws of the model, ancestrally: the latents from the prior, x given the latents.

    Args:
        pair: the pair.
        count: n.
        event: shape of one datum.

    Raises:
        ValueError: if a latent has no distribution to draw from, as in an autoencoder, or if no
            observed site has the shape of the data.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> drawn = samples(ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)), 5, (3,))
        >>> drawn.mean.shape, drawn.latents["z"].shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """
    if count < 1:
        raise ValueError(f"samples needs count >= 1; got {count}.")
    with evaluating(pair):
        x, index = blank(pair, count, event)
        asked = drawable(pair.model, x, index)
        seen = observed(asked, x)
        sites = trace.draws(programs.sampled(pair.model), x, index)
        latents = {name: sites[name].value.cpu() for name in local_latents(asked)}
        site = sites[seen]
        return Samples(latents, likelihood_mean(site, x).cpu(), site.value.reshape(x.shape).cpu())


def prior_moments(
    pair: Pair, name: str, event: Sequence[int], count: int = 2000
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a latent under the model, from draws; each ``(d,)``.

    Args:
        pair: the pair.
        name: the latent's site.
        event: shape of one datum.
        count: number of draws.
    """
    z = samples(pair, count, event).latents[name]
    return z.mean(0), z.std(0)


def blank(pair: Pair, count: int, event: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Data of the right shape that the model does not read, in the pair's type, on its device.

    Raises:
        TypeError: if ``event`` is no shape.
    """
    if not isinstance(event, Sequence) or not all(isinstance(size, int) for size in event):
        raise TypeError(
            f"`event` takes the shape of one datum; got {event!r}. Use a tuple such as (784,)."
        )
    dtype = next((p.dtype for p in pair.parameters() if p.is_floating_point()), None)
    return on_device_of(pair, torch.zeros(count, *event, dtype=dtype), torch.arange(count))


def drawable(model: programs.Program, x: Tensor, index: Tensor) -> dict[str, trace.Site]:
    """The model's sites with latents drawn.

    Raises:
        ValueError: if one of them has nothing to draw from.
    """
    with suppress(NotImplementedError):
        sites = trace.draws(model, x, index)
        if not any(torch.isnan(site.value).any() for site in sites.values()):
            return sites
    raise ValueError(
        "The model has no way to sample: a latent has no distribution to draw from, as in an "
        "autoencoder, whose prior is flat. Give it a proper prior, such as priors.StandardNormal."
    )


def observed(sites: Mapping[str, trace.Site], x: Tensor) -> str:
    """The site at which x is observed, perhaps flattened."""
    fitting = [
        name
        for name, site in sites.items()
        if site.observed
        and site.distribution.batch_shape == x.shape[:1]
        and site.distribution.event_shape.numel() == x.shape[1:].numel()
    ]
    if not fitting:
        raise ValueError(
            f"The model must observe data of shape (B, {', '.join(map(str, x.shape[1:]))}), the "
            f"data plate alone around them; none of its sites {sorted(sites)} does."
        )
    return fitting[-1]


def likelihood_mean(site: trace.Site, x: Tensor) -> Tensor:
    """E[x | z] at an observed site, in the shape of x."""
    mean = mean_of(site.distribution)
    if mean is None:
        raise ValueError(
            f"E[x | z] is asked for, which '{site.name}' has not ({type(site.base).__name__}). "
            "Use a likelihood whose mean is known."
        )
    return mean.reshape(x.shape)
