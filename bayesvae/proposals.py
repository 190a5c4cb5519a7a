"""Distributions over the latents of a datum to draw from: what log p(x) is estimated by.

All densities are those of u, the latents as one real vector (`bayesvae.latents`).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayesvae.latents import Coordinates, Point

Draw = Callable[[Coordinates, int, Tensor, Tensor | None], Tensor]
"""``(coordinates, K, x, index)`` to u ``(K, B, D)``."""


class Proposal(NamedTuple):
    """A distribution over the local latents of each datum.

    Attributes:
        name: in words.
        draw: makes draws.
        log_density: of a `Point`, ``(K, B)``.
        by_guide: whether it needs the guide's density there.
    """

    name: str
    draw: Draw
    log_density: Callable[[Point], Tensor]
    by_guide: bool

    def require(self, coordinates: Coordinates) -> None:
        """Refuses latents whose density under this proposal is not known.

        Raises:
            ValueError: if it needs the guide's density, which is an integral.
        """
        if self.by_guide:
            coordinates.require_density()


GUIDE = Proposal("the guide", Coordinates.draws, lambda point: point.log_guide, True)
"""The pair's own guide: near the posterior if it is any good."""
PRIOR = Proposal("the prior", Coordinates.prior_draws, lambda point: point.log_prior, False)
"""The model's prior: owes nothing to the guide, and far from the posterior of much data."""


def mixture(*parts: Proposal, shares: tuple[float, ...] | None = None) -> Proposal:
    """The mixture of proposals, a defensive one if a part is wide.

    Args:
        *parts: the proposals.
        shares: their weights; equal ones if None.

    Raises:
        ValueError: if shares are not positive numbers, one a part, that sum to one.

    Example:
        >>> mixture(GUIDE, PRIOR, shares=(0.9, 0.1)).name
        'a mixture of the guide and the prior'
    """
    shares = shares or (1 / len(parts),) * len(parts)
    if len(shares) != len(parts) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"mixture needs one positive share a part, summing to one; got {shares} for "
            f"{len(parts)} parts."
        )

    def draw(coordinates: Coordinates, k: int, x: Tensor, index: Tensor | None) -> Tensor:
        u = torch.stack([part.draw(coordinates, k, x, index) for part in parts])
        weights = torch.tensor(shares).to(u)
        chosen = torch.multinomial(weights, u[0, ..., 0].numel(), replacement=True)
        chosen = chosen.reshape(1, *u.shape[1:-1], 1)
        return u.gather(0, chosen.expand(1, *u.shape[1:]))[0]

    def log_density(point: Point) -> Tensor:
        each = torch.stack([part.log_density(point) for part in parts])
        weights = torch.tensor(shares).to(each).log()
        return (each + weights[:, None, None]).logsumexp(0)

    name = "a mixture of " + " and ".join(part.name for part in parts)
    return Proposal(name, draw, log_density, any(part.by_guide for part in parts))
