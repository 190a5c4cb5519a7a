"""E[x | z] at codes, and along paths between them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae.core import programs, trace
from bayesvae.core.evaluation import evaluating
from bayesvae.core.pair import Pair
from bayesvae.generate.encoding import encoded
from bayesvae.generate.sampling import blank, likelihood_mean, observed, prior_moments


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
        return likelihood_mean(sites[observed(sites, x)], x).cpu()


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
