"""A pair run forwards: draws of the model, codes of data, and what lies between codes.

The model is asked for the distribution of the observed site with its latents drawn, or fixed at
given values; its mean is E[x | z].  Latents outside the data plate, shared by all data, stay at
the guide's means wherever data are given.  Nothing here is a bound or an estimate: these are the
arrays under the pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from bayesvae import programs, trace
from bayesvae.distributions import mean_of
from bayesvae.encoding import encoded, local_latents
from bayesvae.evaluation import evaluating
from bayesvae.pair import Pair, on_device_of

LogDensity: TypeAlias = Callable[[Tensor], Tensor]


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


class Traversals(NamedTuple):
    """One latent varied at a time.

    Attributes:
        mean: E[x | z], ``(d, steps, *event)``.
        values: how far from the prior's mean, in its standard deviations, ``(steps,)``.
        dims: which entry of the latent each row varies, ``(d,)``.
        activity: variance of that entry's posterior mean over the data, ``(d,)``.
    """

    mean: Tensor
    values: Tensor
    dims: Tensor
    activity: Tensor


class Grid(NamedTuple):
    """Log-densities of a two-dimensional latent on a grid.

    Attributes:
        first: coordinates of the first entry, ``(C,)``.
        second: coordinates of the second entry, ``(R,)``.
        log_joint: log p(x_n, z), ``(n, R, C)``: the posterior up to a constant a datum.
        log_guides: log q(z | x_n), ``(n, R, C)``, by name; the pair's own is "guide".
    """

    first: Tensor
    second: Tensor
    log_joint: Tensor
    log_guides: dict[str, Tensor]

    @property
    def log_guide(self) -> Tensor:
        """Of the pair's own guide, ``(n, R, C)``."""
        return self.log_guides["guide"]


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
        return Samples(latents, _mean(site, x).cpu(), site.value.reshape(x.shape).cpu())


def codes(pair: Pair, data: Any, *, draw: bool = False) -> dict[str, Tensor]:
    """The latents that the guide gives data.

    Args:
        pair: the pair.
        data: a tensor ``(N, *event)``, ``(x, positions)``, or any source of `bayesvae.data`.
        draw: draws of q(z | x), which over all data are the aggregated posterior; else its means,
            from the first latent onwards, each given the ones before. Where a mean is not known,
            as of a flow, a draw stands in.

    Returns:
        By site name, ``(N, *event)``; sites outside the data plate are left out.

    Raises:
        ValueError: if the guide has a row a datum and the data's positions are not known, or if a
            latent lies in a further plate.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> codes(pair, torch.ones(4, 3))["z"].squeeze(-1)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    with evaluating(pair):
        return {name: value.cpu() for name, value in encoded(pair, data, draw).local.items()}


def means(pair: Pair, latents: Mapping[str, Tensor], event: Sequence[int]) -> Tensor:
    """E[x | z] with latents given.

    Args:
        pair: the pair.
        latents: by site name, ``(n, *event)``, or ``event`` for one outside the data plate, which
            may not come first; those not given are drawn from the model.
        event: shape of one datum.

    Returns:
        ``(n, *event)``, in the units of x.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> means(pair, {"z": torch.tensor([[2.0]])}, (3,)).tolist()
        [[2.0, 0.0, 0.0]]
    """
    with evaluating(pair):
        x, index = blank(pair, len(next(iter(latents.values()))), event)
        values = {name: value.to(x.device) for name, value in latents.items()}
        sites = trace.draws(programs.given(pair.model, values), x, index)
        sites = {name: site for name, site in sites.items() if name not in values}
        return _mean(sites[observed(sites, x)], x).cpu()


def reconstructions(
    pair: Pair, data: Any, latents: Mapping[str, Tensor] = MappingProxyType({})
) -> Tensor:
    """E[x | z] at the guide's codes of the data, ``(N, *event)``.

    Args:
        pair: the pair.
        data: as in `codes`.
        latents: codes of the data to use instead, by site name, ``(N, *event)``.
    """
    with evaluating(pair):
        code = encoded(pair, data)
    return means(pair, {**code.local, **latents, **code.shared}, code.x.shape[1:])


def interpolations(pair: Pair, starts: Any, ends: Any, steps: int = 9) -> Tensor:
    """E[x | z] along straight lines between codes.

    Args:
        pair: the pair.
        starts: n data, as in `codes`.
        ends: n data.
        steps: points on each line, its ends included.

    Returns:
        ``(n, steps, *event)``.

    Raises:
        ValueError: if there are not as many starts as ends, or fewer than two steps.
    """
    with evaluating(pair):
        first, last = encoded(pair, starts), encoded(pair, ends)
    shape = first.x.shape
    if shape != last.x.shape or steps < 2:
        raise ValueError(
            f"interpolations needs as many starts as ends and steps >= 2; got {tuple(shape)}, "
            f"{tuple(last.x.shape)} and {steps}."
        )
    share = torch.linspace(0, 1, steps)
    paths = {
        name: torch.stack([torch.lerp(z, last.local[name], s.to(z)) for s in share], 1)
        for name, z in first.local.items()
    }
    paths = {name: path.flatten(0, 1) for name, path in paths.items()}
    return means(pair, paths | first.shared, shape[1:]).unflatten(0, (shape[0], steps))


def traversals(
    pair: Pair, data: Any, steps: int = 9, reach: float = 2.5, limit: int = 10
) -> Traversals:
    """E[x | z] as one entry of the latent moves and the others stay where a datum's code is.

    Of several latents it is the guide's first, the one next to the data in `pairs.hierarchical`.

    Args:
        pair: the pair.
        data: as in `codes`: the first datum is the one varied, all tell which entries are used.
        steps: values of each entry.
        reach: how many of the prior's standard deviations to go each way.
        limit: at most so many entries, those first that vary most over the data.

    Raises:
        ValueError: if that latent is no vector, or has no prior to measure by.
    """
    with evaluating(pair):
        code = encoded(pair, data)
    name, z = next(iter(code.local.items()))
    if z.dim() != 2:
        raise ValueError(
            f"traversals needs a vector of latents a datum; '{name}' has shape {tuple(z.shape)}."
        )
    activity, dims = z.var(0, correction=0).sort(descending=True)
    dims, activity = dims[:limit], activity[:limit]
    loc, scale = prior_moments(pair, name, code.x.shape[1:])
    loc, scale = loc.to(z), scale.to(z)
    values = torch.linspace(-reach, reach, steps).to(z)
    path = z[0].repeat(len(dims), steps, 1)
    for row, dim in enumerate(dims):
        path[row, :, dim] = loc[dim] + scale[dim] * values
    count = len(dims) * steps
    given = {key: v[:1].expand(count, *v.shape[1:]) for key, v in code.local.items()}
    given |= {name: path.flatten(0, 1)} | code.shared
    mean = means(pair, given, code.x.shape[1:]).unflatten(0, (len(dims), steps))
    return Traversals(mean, values.cpu(), dims.cpu(), activity.cpu())


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


def posterior_grid(
    pair: Pair,
    data: Any,
    first: Tensor,
    second: Tensor,
    others: Mapping[str, LogDensity] = MappingProxyType({}),
    *,
    at_once: int = 2000,
) -> Grid:
    """log p(x, z), log q(z | x), and any other log-density, on a grid of a 2-dimensional latent.

    Args:
        pair: the pair, with one latent of two entries.
        data: n data, as in `codes`.
        first: coordinates of the first entry, ``(C,)``.
        second: coordinates of the second entry, ``(R,)``.
        others: by name, from z ``(K, n, 2)`` to log q(z | x_n) ``(K, n)``, as ``log_prob`` maps.
        at_once: points of the grid evaluated together.

    Raises:
        ValueError: if the pair's latent is another, or a log-density is of another shape.
    """
    with evaluating(pair):
        x, index, local, shared = encoded(pair, data)
        shapes = {name: tuple(value.shape[1:]) for name, value in local.items()}
        if list(shapes.values()) != [(2,)]:
            raise ValueError(f"posterior_grid needs one latent of two entries; got {shapes}.")
        ((name, code),) = local.items()

        def under(program: programs.Program, z: Tensor) -> Tensor:
            return trace.log_joint(program, shared | {name: z}, x, index, particles=len(z))

        points = torch.cartesian_prod(second, first).flip(-1).to(code).split(at_once)
        densities = {"": partial(under, pair.model), "guide": partial(under, pair.guide), **others}
        on_grid = {
            key: torch.cat([_at(key, density, part, len(x)) for part in points]).T.cpu()
            for key, density in densities.items()
        }
        on_grid = {k: v.unflatten(1, (len(second), len(first))) for k, v in on_grid.items()}
        return Grid(first, second, on_grid.pop(""), on_grid)


def _at(name: str, density: LogDensity, points: Tensor, size: int) -> Tensor:
    """A log-density ``(K, n)`` at points ``(K, 2)``, for each of n data."""
    found = density(points[:, None].expand(-1, size, -1))
    if found.shape != (len(points), size):
        raise ValueError(
            f"'{name}' must map z (K, n, 2) to log-densities (K, n); got {tuple(found.shape)} for "
            f"{len(points)} points and {size} data. Give it a batch of {size}."
        )
    return found


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


def _mean(site: trace.Site, x: Tensor) -> Tensor:
    mean = mean_of(site.distribution)
    if mean is None:
        raise ValueError(
            f"E[x | z] is asked for, which '{site.name}' has not ({type(site.base).__name__}). "
            "Use a likelihood whose mean is known."
        )
    return mean.reshape(x.shape)
