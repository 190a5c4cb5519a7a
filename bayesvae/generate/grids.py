"""The posterior and its guides on a grid, for latents of two entries."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from bayesvae.core import programs, trace
from bayesvae.core.evaluation import evaluating
from bayesvae.core.pair import Pair
from bayesvae.generate.encoding import encoded

LogDensity: TypeAlias = Callable[[Tensor], Tensor]


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
