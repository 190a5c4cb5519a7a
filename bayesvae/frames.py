"""Coordinates in which posteriors have about unit scale, for a search over families.

Families act on the latents of a datum as one real vector u, in coordinates v = (u - m) / s with m
and s the guide's mean and standard deviation of the datum, so that one step size suits them all.
"""

from typing import NamedTuple

import pyro.distributions as dist
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.distributions import pyro_ready
from bayesvae.latents import Coordinates, Standardised

MOMENTS = 256
"""Draws a datum for a mean and scale where no closed form is at hand."""


class Frame(NamedTuple):
    """What tells one batch from another.

    Attributes:
        x: the batch ``(B, *event)``.
        index: its positions.
        loc: m, ``(B, D)``.
        scale: s, ``(B, D)``.
        mask: which data count, ``(B,)``; None for all.
    """

    x: Tensor
    index: Tensor | None
    loc: Tensor
    scale: Tensor
    mask: Tensor | bool | None

    @classmethod
    def by_draws(cls, coordinates: Coordinates, x: Tensor, index: Tensor | None) -> "Frame":
        """By the moments of draws of the guide.

        Example:
            >>> import torch
            >>> from bayesvae.pairs import PPCA, ppca
            >>> pair, x = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)), torch.zeros(4, 3)
            >>> Frame.by_draws(Coordinates(pair.model, pair.guide, x), x, None).scale.shape
            torch.Size([4, 1])
        """
        standardised = Standardised.by(coordinates.draws(MOMENTS, x, index))
        return cls(x, index, *standardised, coordinates.mask(x, index))

    @property
    def standardised(self) -> Standardised:
        """v of u."""
        return Standardised(self.loc, self.scale)

    @property
    def log_determinant(self) -> Tensor:
        """Of u in v, zero where a datum is masked out."""
        return scale_and_mask(self.standardised.log_determinant, mask=self.mask)

    def masked(self, q: Distribution) -> Distribution:
        """q with the log-densities of data masked out at zero, as in the pair's own terms."""
        return q if self.mask is None else pyro_ready(q).mask(self.mask)

    def log_joint(self, coordinates: Coordinates, v: Tensor) -> Tensor:
        """log p(x_n, v_n) of v ``(K, B, D)``, ``(K, B)``."""
        u = self.standardised.to_u(v)
        return coordinates.at(u, self.x, self.index).log_joint + self.log_determinant

    def prior(self, coordinates: Coordinates) -> Distribution:
        """The diagonal normal over v with the moments of draws of the model's prior."""
        v = self.standardised.to_v(coordinates.prior_draws(MOMENTS, self.x, self.index))
        return dist.Normal(v.mean(0), v.std(0).clamp_min(1e-3)).to_event(1)
