r"""log p(x) and the posterior of any pair with one or two latents a datum, on a grid.

In coordinates u in R^D of a datum's latents (`bayesvae.core.coordinates.Coordinates`), D <= 2,

    log p(x) = log \int p(x, u) du ~= log v sum_g p(x, u_g),

with the points u_g on an even grid and v the volume that each stands for: the trapezoid rule, once
the integrand has died down at the ends.  If it is smooth as well, the error falls faster than any
power of the step; a normal is integrated to 5e-9 with one point a standard deviation ("The
Exponentially Convergent Trapezoidal Rule", Trefethen and Weideman, 2014).  What is left to do is
to find the mass.  Each datum has a grid of its own (see `bayesvae.rulers.boxes`):

1. in coordinates standardised by draws of the guide, resized until it holds the posterior;
2. again along the mean and the covariance that the first has found, so that it is no wider than
   it has to be where the posterior is correlated or the guide is off;
3. at full density.

The same sum over every other point of the last grid, whose error is far larger, tells whether the
grid was fine enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates, Standardised
from bayesvae.core.evaluation import evaluating
from bayesvae.core.memory import MEMORY, bytes_per_draw
from bayesvae.core.pair import Pair, on_device_of, require_pair
from bayesvae.rulers.boxes import Box, Frame, Values, covering

_DRAWS = 64
_SEARCH = 65
_POINTS = {1: 2049, 2: 129}
_MISSED = 1e-6


class Quadrature(NamedTuple):
    """log p(x) and the posterior of each datum on a grid of G points.

    Attributes:
        log_evidence: log p(x), ``(B,)`` nats.
        u: the grid, ``(G, B, D)``, in the coordinates of `bayesvae.core.coordinates.Coordinates`.
        log_posterior: log p(u | x) on it, ``(G, B)``.
        volume: of u that a point stands for, ``(B,)``.
        error: by how much the sum over every other point differs from ``log_evidence``, ``(B,)``
            nats. Below a hundredth, ``log_evidence`` itself is far closer to the truth, for smooth
            posteriors by about the square of it; above, more points are needed.
    """

    log_evidence: Tensor
    u: Tensor
    log_posterior: Tensor
    volume: Tensor
    error: Tensor

    @property
    def mass(self) -> Tensor:
        """The posterior probability that each point stands for, ``(G, B)``; sums to one."""
        return self.log_posterior.exp() * self.volume

    def expectation(self, values: Tensor) -> Tensor:
        """E[f(u) | x].

        Args:
            values: f on the grid, ``(G, B, *)``.

        Returns:
            ``(B, *)``.
        """
        mass = self.mass.reshape(self.mass.shape + (1,) * (values.dim() - 2))
        return (mass * values).sum(0)

    def mean(self) -> Tensor:
        """E[u | x], ``(B, D)``."""
        return self.expectation(self.u)

    def covariance(self) -> Tensor:
        """Cov[u | x], ``(B, D, D)``."""
        centred = self.u - self.mean()
        return self.expectation(centred.unsqueeze(-1) * centred.unsqueeze(-2))

    def kl(self, q: Distribution) -> Tensor:
        """KL(q || p(u | x)), which is log p(x) minus the ELBO of q.

        Args:
            q: a distribution over u, batch shape ``(B,)`` and event shape ``(D,)``.

        Returns:
            ``(B,)``, nats.

        Raises:
            ValueError: if the grid does not hold all of q, or is too coarse for it.
        """
        log_q = q.log_prob(self.u)
        mass = log_q.exp() * self.volume
        held = mass.sum(0)
        if not ((held - 1).abs() < _MISSED).all():
            raise ValueError(
                "kl needs a grid that holds all of q; of its mass, 1 a datum, the grid sees "
                f"{held.min().item():.6g} to {held.max().item():.6g}. Use "
                "quadrature(..., cover=q), with more points if that was done."
            )
        return torch.where(mass > 0, mass * (log_q - self.log_posterior), 0.0).sum(0)


def quadrature(
    pair: Pair,
    x: Tensor,
    index: Tensor | None = None,
    *,
    points: int | None = None,
    width: float = 10.0,
    cover: Distribution | None = None,
    memory: int = MEMORY,
) -> Quadrature:
    """log p(x) and the posterior of each datum by the trapezoid rule, for any decoder.

    The guide only says where to look first.  In float64 a smooth posterior comes out to rounding;
    look at ``error``.  Not found is a mode that the first grid steps over, with 65 points along
    each axis or half of ``points``, or one that lies beyond it behind `boxes.TAIL` nats of
    emptiness.

    Args:
        pair: the pair, its local latents continuous, D <= 2 in all; nothing of it is changed.
        x: a batch ``(B, *event)``.
        index: its positions ``(B,)``, for programs that need them.
        points: along each axis of the last grid, odd, so that every other point makes a grid too;
            None for 2,049 on a line, 129 on a plane.
        width: half a side of the first grid, in standard deviations of the guide.
        cover: a distribution over u, batch shape ``(B,)`` and event shape ``(D,)``, that the grid
            has to hold as well, for `Quadrature.kl`.
        memory: budget for what is computed at once, bytes.

    Returns:
        The quadrature, without gradients.

    Raises:
        ValueError: for more than two latents, discrete or shared ones, an even number of points,
            or a density that dies down at the edges of no grid.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> model = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)
        >>> found = quadrature(ppca(model), torch.zeros(4, 3))
        >>> torch.allclose(found.log_evidence, model.log_evidence(torch.zeros(4, 3)), atol=1e-4)
        True
        >>> found.mean().shape, found.covariance().shape
        (torch.Size([4, 1]), torch.Size([4, 1, 1]))
    """
    require_pair(pair)
    x, index = on_device_of(pair, x, index)
    with _evaluating(pair, x, index):
        _require_no_shared(pair, x, index)
        coordinates = Coordinates(pair.model, pair.guide, x, index)
        _require_plane(coordinates)
        points = _POINTS[coordinates.size] if points is None else points
        _require_grid(points, width)
        loc, scale = Standardised.by(coordinates.draws(_DRAWS, x, index))
        search = max(_SEARCH, (points + 1) // 2)
        box = Box.around(Frame(loc, scale.diag_embed()), width, search)
        target = _Target(coordinates, x, index, cover, memory)
        box, values = covering(box, target.values)
        box, values = covering(box.turned(values.log_density, width), target.values)
        tight, _ = box.resized(values.log_density)
        return _summed(*covering(tight._replace(n=points), target.values, crops=0))


class _Target:
    """What the grids of a batch have to hold."""

    def __init__(
        self,
        coordinates: Coordinates,
        x: Tensor,
        index: Tensor | None,
        cover: Distribution | None,
        memory: int,
    ) -> None:
        self.coordinates, self.batch, self.cover = coordinates, (x, index), cover
        u = coordinates.draws(2, x, index)
        per_draw = bytes_per_draw(lambda: coordinates.at(u, x, index), 2 * len(x))
        self.at_once = max(1, memory // (per_draw * len(x)))

    def values(self, box: Box) -> Values:
        """The log joint density on a grid, and what the grid is to hold.

        Raises:
            ValueError: if there is no density at all on this grid.
        """
        u = box.points()
        parts = [self.coordinates.at(part, *self.batch) for part in u.split(self.at_once)]
        log_joint = torch.cat([part.log_joint for part in parts])
        # Far out, where numbers overflow, there is nothing that a grid could have to hold.
        finite = log_joint.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        log_evidence = finite.logsumexp(0) + box.volume().log()
        empty = int((~log_evidence.isfinite()).sum())
        if empty:
            raise ValueError(
                f"quadrature found no density at all on a grid of {empty} of the "
                f"{len(log_evidence)} data. Use another width, or a guide closer to the posterior."
            )
        density = finite - log_evidence
        if self.cover is not None:
            density = torch.logaddexp(density, self.cover.log_prob(u))
        return Values(log_joint, density)


def _summed(box: Box, values: Values) -> Quadrature:
    log_joint, volume = values.log_joint, box.volume()
    if (log_joint.isnan() | (log_joint == torch.inf)).any():
        raise ValueError(
            "quadrature needs log p(x, u) to be a number wherever the posterior is; some are NaN "
            "or infinite. Check the decoder on latents a few standard deviations off the mean."
        )
    log_evidence = log_joint.logsumexp(0) + volume.log()
    coarser = box.every_other(log_joint).logsumexp(0) + box.halved().volume().log()
    error = (log_evidence - coarser).abs()
    return Quadrature(log_evidence, box.points(), log_joint - log_evidence, volume, error)


@contextmanager
def _evaluating(pair: Pair, x: Tensor, index: Tensor | None) -> Iterator[None]:
    pair.find_parameters(x, index)
    with evaluating(pair):
        yield


def _require_grid(points: int, width: float) -> None:
    if points < 9 or points % 2 == 0 or not width > 0:
        raise ValueError(
            "quadrature needs an odd number of points, 9 or more, and width > 0; got "
            f"{points} and {width}. Leave them out for good ones."
        )


def _require_no_shared(pair: Pair, x: Tensor, index: Tensor | None) -> None:
    sites = trace.draws(pair.model, x, index).values()
    shared = [s.name for s in sites if s.data_plate is None and not s.observed]
    if shared:
        raise ValueError(
            f"quadrature integrates out the latents of single data; {shared} belong to all of "
            "them. Fix them in both programs: programs.given(program, values)."
        )


def _require_plane(coordinates: Coordinates) -> None:
    if coordinates.size > 2:
        raise ValueError(
            f"quadrature needs one or two latents a datum; {list(coordinates.names)} have "
            f"{coordinates.size} entries. Use log_evidence(...) or annealed_evidence(...)."
        )
