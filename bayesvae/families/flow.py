"""Normalizing flows with weights of their own for each datum.

    u = m + L x,   x = (c_T o ... o c_1 o g)(e),   e ~ N(0, I)

where g bends each latent by itself along a monotonic rational-quadratic spline ("Neural Spline
Flows", Durkan et al., 2019), and each coupling c_t keeps one half a of its argument and moves the
other one by what a small network says about a,

    (a, b) -> (a, b exp(s_t(a)) + t_t(a))

("Density Estimation Using Real NVP", Dinh et al., 2017).  Every step and its inverse are closed
forms with triangular Jacobians, so draws and densities cost the same.  m and L are a multivariate
normal's: where splines and couplings are the identity, the flow is that normal, and it is so for
rows of zeros in what remains.  There the networks have hidden layers with fixed random weights
and last layers of zeros, from which they can move.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from bayesvae.compiler import argument_checks_kept
from bayesvae.core.distributions import innermost
from bayesvae.families.base import Family
from bayesvae.families.normal import MultivariateNormal

with argument_checks_kept():
    from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

UNIT = 0.1
"""What a unit of a row moves a weight by, so that one step size suits weights and locations."""
POINTS = 512
"""At least so many fixed points are what means and variances are taken over."""

# The steps of a flow, on ``(*, S, d)`` for rows ``(*)`` and S draws of each ----------------------


def _moved(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """An elementwise transform's values and the sums of its log-derivatives."""
    y, log_slope = transform.call_and_ladj(x)
    return y, log_slope.sum(-1)


class _Bend(NamedTuple):
    """g: each latent by itself."""

    spline: MonotonicRQSTransform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _moved(self.spline, x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _moved(self.spline.inv, y)


class _Couple(NamedTuple):
    """c_t: one half by the other.

    Attributes:
        layers: weights ``(*, i, o)`` and biases ``(*, 1, o)``.
        kept: how many latents are kept.
        last: whether these are the last ones.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    kept: int
    last: bool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._halves(x)
        b, log_slope = _moved(self._map(a), b)
        return self._whole(a, b), log_slope

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._halves(y)
        b, log_slope = _moved(self._map(a).inv, b)
        return self._whole(a, b), log_slope

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.last:
            return x[..., -self.kept :], x[..., : -self.kept]
        return x[..., : self.kept], x[..., self.kept :]

    def _whole(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([b, a] if self.last else [a, b], -1)

    def _map(self, a: Tensor) -> Transform:
        *hidden, (weight, bias) = self.layers
        for inner, shift in hidden:
            a = torch.tanh(a @ inner + shift)
        return MonotonicAffineTransform(*(a @ weight + bias).chunk(2, -1))


class _Place(NamedTuple):
    """m + L x, with m ``(*, d)`` and L ``(*, d, d)``."""

    loc: Tensor
    scale_tril: Tensor

    @property
    def log_slope(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.loc.unsqueeze(-2) + x @ self.scale_tril.mT, self.log_slope

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        centred = (y - self.loc.unsqueeze(-2)).mT
        x = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False).mT
        return x, -self.log_slope


# The distribution --------------------------------------------------------------------------------


class NormalizingFlow(TorchDistribution):
    """What standard normal noise becomes under a row's own bijection.

    Args:
        family: tells what a row holds.
        rows: ``(*, family.size)``.
        batch_shape: of which ``(*)`` is the last part; None for ``(*)`` itself.
        validate_args: whether to check values, as in torch.

    Example:
        >>> q = Flow(2)(torch.zeros(5, Flow(2).size))
        >>> u = q.rsample((7,))
        >>> u.shape, q.log_prob(u).shape
        (torch.Size([7, 5, 2]), torch.Size([7, 5]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        family: "Flow",
        rows: Tensor,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.family, self.rows = family, rows
        self._steps = family.steps(rows)
        self._last: tuple[Tensor, Tensor] | None = None
        shape = rows.shape[:-1] if batch_shape is None else batch_shape
        super().__init__(shape, torch.Size([family.dim]), validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: Distribution | None = None
    ) -> "NormalizingFlow":
        """The flow with leading dims; weights are not copied along them."""
        batch_shape = torch.Size(batch_shape)
        own = batch_shape[len(batch_shape) - self.rows.dim() + 1 :]
        rows = self.rows.expand(*own, -1)
        return NormalizingFlow(self.family, rows, batch_shape, self._validate_args)

    def standardised(self, loc: Tensor, scale: Tensor) -> "NormalizingFlow":
        """The distribution of (u - loc) / scale, for loc and scale ``(*, d)``."""
        return NormalizingFlow(self.family, self.family.standardised(self.rows, loc, scale))

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draws ``(*sample_shape, *, d)``."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Draws ``(*sample_shape, *, d)`` and their log-densities, at little more than the draws.

        `log_prob` of these very draws is then answered without a second pass.
        """
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.rows.dtype, device=self.rows.device)
        u, log_slope = self._pushed(noise)
        self._last = u, _log_standard(noise) - log_slope
        return self._last

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of ``(*, d)``."""
        if self._validate_args:
            self._validate_sample(value)
        if self._last is not None and value is self._last[0]:
            known = self._last[1]
            if known.requires_grad or not torch.is_grad_enabled():
                return known
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        noise, log_slope = self._pulled(value.expand(shape))
        return _log_standard(noise) + log_slope

    @property
    def mean(self) -> Tensor:
        """The mean over fixed points, ``(*, d)``; exact where the flow is a normal."""
        return self._at_points().mean(0)

    @property
    def variance(self) -> Tensor:
        """The variances over fixed points, ``(*, d)``; exact where the flow is a normal."""
        return self._at_points().var(0, correction=0)

    def _at_points(self) -> Tensor:
        points = _points(self.family.dim).to(self.rows)
        shape = (len(points), *self.batch_shape, self.family.dim)
        batch = [1] * len(self.batch_shape)
        return self._pushed(points.reshape(-1, *batch, self.family.dim).expand(shape))[0]

    def _pushed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise ``(*, d)`` to draws, with log |det du / de|."""
        return self._through([step.forward for step in self._steps], noise)

    def _pulled(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Draws ``(*, d)`` to noise, with log |det de / du|."""
        return self._through([step.inverse for step in reversed(self._steps)], u)

    def _through(self, maps: Sequence, x: Tensor) -> tuple[Tensor, Tensor]:
        own, shape = self.rows.shape[:-1], x.shape
        x = x.reshape(-1, *own, shape[-1]).movedim(0, -2)
        total = x.new_zeros(())
        for each in maps:
            x, log_slope = each(x)
            total = total + log_slope
        total = total.expand(x.shape[:-1])
        return x.movedim(-2, 0).reshape(shape), total.movedim(-1, 0).reshape(shape[:-1])


def _log_standard(noise: Tensor) -> Tensor:
    """log N(e; 0, I)."""
    return -noise.square().sum(-1) / 2 - noise.shape[-1] * math.log(2 * math.pi) / 2


@lru_cache
def _points(dim: int) -> Tensor:
    """Points with mean zero, unit covariance and no third moments, ``(P, d)``."""
    half = np.random.default_rng(0).standard_normal((max(POINTS // 2, 2 * dim), dim))
    white = np.linalg.solve(np.linalg.cholesky(half.T @ half / len(half)), half.T).T
    return torch.from_numpy(np.concatenate([white, -white]))


# The family --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow(Family):
    """Normalizing flow: splines for each latent, couplings between them, and a full covariance.

    A row holds the numbers of a `MultivariateNormal`, the splines' and the networks' weights, so
    it is long, and takes more steps to optimise than a normal.  A single latent has nothing to
    couple and is bent by its spline alone.  Means and variances have no closed form and are taken
    over fixed points.

    Attributes:
        dim: d, the number of latents of a datum.
        transforms: T, the number of couplings.
        hidden: widths of the hidden layers of each coupling's network.
        bins: pieces of each spline, which is the identity beyond five standard deviations.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import torch
        >>> family = Flow(3, transforms=2, hidden=(8,))
        >>> family(torch.zeros(5, family.size)).rsample((7,)).shape
        torch.Size([7, 5, 3])
    """

    dim: int
    transforms: int = 4
    hidden: tuple[int, ...] = (16,)
    bins: int = 4
    patience: ClassVar[int] = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.transforms < 0 or self.bins < 2 or min(self.hidden, default=1) < 1:
            raise ValueError(
                "Flow needs transforms >= 0, bins >= 2 and hidden widths >= 1; got "
                f"{self.transforms}, {self.bins} and {self.hidden}. Use MultivariateNormal for "
                "no flow at all."
            )

    @property
    def size(self) -> int:
        """d (d + 3) / 2, d (3 ``bins`` - 1) and the networks' weights."""
        return self._base.size + len(_start(self, torch.float64, torch.device("cpu")))

    @property
    def _base(self) -> MultivariateNormal:
        return MultivariateNormal(self.dim)

    def __call__(self, rows: Tensor) -> NormalizingFlow:
        """Rows ``(*, size)`` to a flow over ``(d,)`` with batch shape ``(*)``."""
        return NormalizingFlow(self, rows)

    def rows(self, distribution: Distribution) -> Tensor:
        """Rows of the normal with the mean and covariance of a distribution over ``(d,)``.

        Flows of this very family give their own; distributions other than normals with
        correlations give their variances alone.
        """
        if self.contains(distribution):
            return innermost(distribution).rows
        normal = self._base.rows(distribution)
        rest = normal.new_zeros(*normal.shape[:-1], self.size - self._base.size)
        return torch.cat([normal, rest], -1)

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a flow of this family."""
        base = innermost(distribution)
        return isinstance(base, NormalizingFlow) and base.family == self

    def standardised(self, rows: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """Rows of (u - loc) / scale, for rows of u."""
        normal, rest = rows.split([self._base.size, self.size - self._base.size], -1)
        q = self._base(normal)
        tril = q.scale_tril / scale.unsqueeze(-1)
        moved = dist.MultivariateNormal((q.loc - loc) / scale, scale_tril=tril)
        return torch.cat([self._base.rows(moved), rest], -1)

    def steps(self, rows: Tensor) -> tuple[_Bend | _Couple | _Place, ...]:
        """The bijection of each row, from noise to latents."""
        normal, rest = rows.split([self._base.size, self.size - self._base.size], -1)
        rest = _start(self, rows.dtype, rows.device) + UNIT * rest
        knots, *parts = rest.split([math.prod(shape) for shape in self._shapes], -1)
        parts = [part.unflatten(-1, s) for part, s in zip(parts, self._shapes[1:], strict=True)]
        knots = knots.unflatten(-1, (1, self.dim, -1))
        spline = MonotonicRQSTransform(*knots.split([self.bins, self.bins, self.bins - 1], -1))
        layers, depth = list(zip(parts[::2], parts[1::2], strict=True)), len(self.hidden) + 1
        couples = [
            _Couple(layers[depth * t : depth * (t + 1)], self._kept(t), t % 2 == 1)
            for t in range(self._couplings)
        ]
        base = self._base(normal)
        return _Bend(spline), *couples, _Place(base.loc, base.scale_tril)

    @property
    def _couplings(self) -> int:
        return self.transforms if self.dim > 1 else 0

    def _kept(self, t: int) -> int:
        """How many latents coupling t keeps: the first half, or the last."""
        return self.dim // 2 if t % 2 == 0 else self.dim - self.dim // 2

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Of the splines' numbers, then of each layer's weight and bias."""
        shapes: list[tuple[int, ...]] = [(self.dim, 3 * self.bins - 1)]
        for kept in map(self._kept, range(self._couplings)):
            for inputs, outputs in pairwise((kept, *self.hidden, 2 * (self.dim - kept))):
                shapes += [(inputs, outputs), (1, outputs)]
        return shapes


@lru_cache
def _start(family: Flow, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What zeros in a row stand for: straight splines, hidden layers, last layers of zeros."""
    numbers, depth = np.random.default_rng(0), len(family.hidden) + 1
    knots, *layers = family._shapes
    parts = [np.zeros(math.prod(knots))]
    for k, shape in enumerate(layers):
        last = k // 2 % depth == depth - 1
        bound = 0.0 if last else math.sqrt(3 / shape[0])
        parts.append(numbers.uniform(-bound, bound, math.prod(shape)))
    return torch.from_numpy(np.concatenate(parts)).to(device, dtype)
