"""Even grids, one a datum, that grow and shrink until they hold a density and little else.

A grid lies in a frame, u = m + L t, over a box of t.  Wherever the density at a face of the box is
within `TAIL` nats of the peak the box grows there by its own side; wherever a margin of it is
empty it is cut off.  Heights are compared axis by axis, the other axis summed out.  A grid too
coarse for a density sees now more and now less of it, so that after a few rounds boxes only grow.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TAIL = 36.0
"""Nats below the peak at which a grid may end: exp(-36) is what float64 rounds off."""
_MARGIN = 4.0
"""Margins are cut off this much lower still, so that no face moves back and forth."""
_CROPS = 12
_ROUNDS = 50


class Frame(NamedTuple):
    """Coordinates t of each datum, u = loc + tril t.

    Attributes:
        loc: m, ``(B, D)``.
        tril: L, lower triangular, ``(B, D, D)``.
    """

    loc: Tensor
    tril: Tensor

    def to_u(self, t: Tensor) -> Tensor:
        """u of t, ``(G, B, D)``."""
        return self.loc + (self.tril @ t.unsqueeze(-1)).squeeze(-1)


class Box(NamedTuple):
    """A grid of n^D points for each datum.

    Attributes:
        frame: in which the box lies.
        low: its lower faces, t ``(B, D)``.
        high: its upper faces, ``(B, D)``.
        n: points along each axis.
    """

    frame: Frame
    low: Tensor
    high: Tensor
    n: int

    @classmethod
    def around(cls, frame: Frame, width: float, n: int) -> "Box":
        """From -width to width on every axis."""
        face = torch.full_like(frame.loc, width)
        return cls(frame, -face, face, n)

    @property
    def step(self) -> Tensor:
        """Between points, in t, ``(B, D)``."""
        return (self.high - self.low) / (self.n - 1)

    def points(self) -> Tensor:
        """The grid, u ``(n^D, B, D)``."""
        dim = self.low.shape[-1]
        along = torch.linspace(0, 1, self.n).to(self.low)
        share = torch.cartesian_prod(*[along] * dim).reshape(-1, 1, dim)
        return self.frame.to_u(self.low + (self.high - self.low) * share)

    def volume(self) -> Tensor:
        """The volume of u that a point stands for, ``(B,)``."""
        return self.step.prod(-1) * self.frame.tril.diagonal(dim1=-2, dim2=-1).prod(-1)

    def halved(self) -> "Box":
        """The grid of every other point of an odd number."""
        return self._replace(n=(self.n + 1) // 2)

    def every_other(self, values: Tensor) -> Tensor:
        """Of values on the grid ``(n^D, B)`` those on the halved one."""
        return self._shaped(values)[(slice(None, None, 2),) * self.low.shape[-1]].flatten(0, -2)

    def resized(self, log_density: Tensor, crop: bool = True) -> tuple["Box", bool]:
        """The box with its faces moved to where the density ends.

        Args:
            log_density: on the grid, ``(n^D, B)``.
            crop: whether faces may move inwards as well.

        Returns:
            The box, and whether this one held all of the density already, and not much else.
        """
        profile = self._profiles(log_density)
        height = profile - profile.amax(0)
        open_low, open_high = height[0] > -TAIL, height[-1] > -TAIL
        inside = (height > -TAIL - _MARGIN).to(torch.int8)
        first, last = inside.argmax(0), self.n - 1 - inside.flip(0).argmax(0)
        low, high, side = self.low, self.high, self.high - self.low
        settled = ~open_low & ~open_high
        if crop:
            settled = settled & (last - first >= self.n // 3)
            high = low + (last + 1).clamp_max(self.n - 1) * self.step
            low = low + (first - 1).clamp_min(0) * self.step
        low = torch.where(open_low, self.low - side, low)
        high = torch.where(open_high, self.high + side, high)
        return self._replace(low=low, high=high), bool(settled.all())

    def turned(self, log_density: Tensor, width: float) -> "Box":
        """A box along the axes of the mass on this one, ``width`` of its deviations each way.

        Args:
            log_density: on the grid, ``(n^D, B)``.
            width: half a side.
        """
        u, mass = self.points(), log_density.softmax(0).unsqueeze(-1)
        mean = (mass * u).sum(0)
        centred = u - mean
        covariance = ((mass * centred).unsqueeze(-1) * centred.unsqueeze(-2)).sum(0)
        # A grid sees no spread below that of an even density over one of its cells.
        cell = self.frame.tril * (self.step / 12**0.5).unsqueeze(-2)
        tril = torch.linalg.cholesky(covariance + cell @ cell.mT)
        return Box.around(Frame(mean, tril), width, self.n)

    def _shaped(self, values: Tensor) -> Tensor:
        """``(n^D, B)`` with an axis for each latent, ``(n, ..., n, B)``."""
        return values.reshape(*[self.n] * self.low.shape[-1], -1)

    def _profiles(self, log_density: Tensor) -> Tensor:
        """The densities along each axis, the others summed out, ``(n, B, D)``."""
        shaped, dim = self._shaped(log_density), self.low.shape[-1]
        others = [[axis for axis in range(dim) if axis != kept] for kept in range(dim)]
        return torch.stack([shaped.logsumexp(rest) if rest else shaped for rest in others], -1)


class Values(NamedTuple):
    """What is known on a grid, ``(n^D, B)`` each.

    Attributes:
        log_joint: log p(x, u).
        log_density: of what the grid has to hold; finite somewhere.
    """

    log_joint: Tensor
    log_density: Tensor


def covering(box: Box, values: Callable[[Box], Values], crops: int = _CROPS) -> tuple[Box, Values]:
    """The box resized until it holds the density, and what is known on its grid.

    Args:
        box: where to begin.
        values: on the grid of a box.
        crops: how many times faces may move inwards as well.

    Raises:
        ValueError: if the density reaches the faces however large the box.
    """
    for attempt in range(_ROUNDS):
        known = values(box)
        resized, settled = box.resized(known.log_density, crop=attempt < crops)
        if settled:
            return box, known
        box = resized
    raise ValueError(
        f"quadrature needs a density that falls by {TAIL:g} nats towards the edges of a grid; "
        f"mass still sat on an edge after {_ROUNDS} rounds of widening. Check that the prior is "
        "proper and that no datum is masked out."
    )
