"""The guide's latents of data: means, each given the ones before, or draws.

Latents outside the data plate, shared by all data, are given beside those of single data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from bayesvae.core import programs, trace
from bayesvae.core.dependence import refuse_positions
from bayesvae.core.distributions import centre_of
from bayesvae.core.evaluation import evaluating
from bayesvae.core.pair import Pair, on_device_of
from bayesvae.data import rows, sequential


class Code(NamedTuple):
    """Data on the pair's device with their latents, and the latents that all data share.

    Attributes:
        x: the data, ``(N, *event)``.
        index: their positions, ``(N,)``.
        local: by site name, ``(N, *event)``.
        shared: by site name, ``event``.
    """

    x: Tensor
    index: Tensor
    local: dict[str, Tensor]
    shared: dict[str, Tensor]


def local_latents(sites: Mapping[str, trace.Site]) -> list[str]:
    """The names of the latents of single data.

    Args:
        sites: of a run.

    Raises:
        ValueError: if one lies in a further plate, which puts another axis before the data's.
    """
    local = [s for s in sites.values() if s.data_plate is not None and not s.observed]
    for site in local:
        if len(site.plates) > 1:
            raise ValueError(
                f"Codes need latents with the data plate alone around them; '{site.name}' lies in "
                f"{[plate.name for plate in site.plates]}. Make the other plates part of the "
                "event with .to_event(n)."
            )
    return [site.name for site in local]


def encoded(pair: Pair, data: Any, draw: bool = False) -> Code:
    """The guide's latents of data; means, each given the ones before, or draws.

    Args:
        pair: the pair.
        data: a tensor ``(N, *event)``, ``(x, positions)``, or any source of `bayesvae.data`.
        draw: whether to draw; where a mean is not known, a draw stands in anyway.

    Raises:
        ValueError: if the guide has a row a datum and the data's positions are not known, or if a
            latent lies in a further plate.

    Example:
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> encoded(pair, torch.ones(4, 3)).local["z"].shape
        torch.Size([4, 1])
    """
    x, index = on_device_of(pair, *rows(data))
    pair.find_parameters(x, index)
    refuse_positions(pair.guide, list(pair.parameters()), x, index, sequential(data))
    sites = trace.draws(pair.guide, x, index)
    local = local_latents(sites)
    values: dict[str, Tensor] = {}
    for name in [name for name, site in sites.items() if not site.observed]:
        if not draw:
            sites = trace.draws(programs.given(pair.guide, values), x, index)
        values[name] = sites[name].value if draw else _mean_or_draw(sites[name])
    shared = {name: value for name, value in values.items() if name not in local}
    return Code(x, index, {name: values[name] for name in local}, shared)


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
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> codes(pair, torch.ones(4, 3))["z"].squeeze(-1)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    with evaluating(pair):
        return {name: value.cpu() for name, value in encoded(pair, data, draw).local.items()}


def _mean_or_draw(site: trace.Site) -> Tensor:
    mean = centre_of(site.distribution)
    return site.value if mean is None else mean
