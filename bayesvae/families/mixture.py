"""Mixtures of diagonal normals, q(u) = sum_c pi_c N(u; m_c, diag s_c^2), with pathwise gradients.

Which component a draw comes from is discrete, and no derivative passes through that choice.  Two
estimators do without it.

*Stratified*: one draw u_c = m_c + s_c e of every component, with its weight,

    E_q f = sum_c pi_c E_e f(m_c + s_c e),

differentiable in all that makes q.  Where f = log p - log q, the gradient that passes through the
density of log q alone, -E_q[d log q(u)], is zero, so that log q may be scored with its parameters
held fixed: what remains,

    sum_c d(pi_c) f(u_c) + sum_c pi_c f'(u_c) d(u_c),

is unbiased, and without noise where q is exact, since f is constant there and sum_c d(pi_c) = 0
("Sticking the Landing", Roeder, Wu and Duvenaud, 2017).

*Implicit*: a draw u of the mixture, moved with the parameters so that its conditional
distribution functions F_i(u_i | u_1 ... u_{i-1}) stay what they are: dF = 0, hence

    d(u) = -(dF / du)^{-1} dF,   the triangular dF / du in closed form

("Implicit Reparameterization Gradients", Figurnov, Mohamed and Mnih, 2018).  It serves programs
that want one draw; between modes far apart its variance is large.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints

from bayesvae.core.distributions import innermost
from bayesvae.families.base import Family, cosines, positive, raw_of

SPREAD = 0.5
"""How far the components' means stand apart at the start, in their own standard deviations."""


class MixtureOfNormals(TorchDistribution):
    """sum_c pi_c N(m_c, diag s_c^2) over ``(d,)``.

    Args:
        logits: log pi up to a constant, ``(*, C)``.
        loc: m, ``(*, C, d)``.
        scale: s, ``(*, C, d)``.
        validate_args: whether to check arguments and values, as in torch.

    Example:
        >>> q = MixtureOfNormals(torch.zeros(2), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
        >>> q.mean, q.variance
        (tensor([0.]), tensor([2.]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: Distribution | None = None
    ) -> "MixtureOfNormals":
        """The mixture with its parameters repeated along leading dims."""
        logits, loc, scale = (
            each.expand(*batch_shape, *each.shape[len(self.batch_shape) :])
            for each in (self.logits, self.loc, self.scale)
        )
        return MixtureOfNormals(logits, loc, scale, self._validate_args)

    def standardised(self, loc: Tensor, scale: Tensor) -> "MixtureOfNormals":
        """The distribution of (u - loc) / scale, for loc and scale ``(*, d)``."""
        loc, scale = loc.unsqueeze(-2), scale.unsqueeze(-2)
        return MixtureOfNormals(self.logits, (self.loc - loc) / scale, self.scale / scale)

    @property
    def probs(self) -> Tensor:
        """pi, ``(*, C)``."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The mean, ``(*, d)``."""
        return (self.probs.unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variances, ``(*, d)``."""
        squares = self.scale.square() + (self.loc - self.mean.unsqueeze(-2)).square()
        return (self.probs.unsqueeze(-1) * squares).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of ``(*, d)``."""
        if self._validate_args:
            self._validate_sample(value)
        standard = (value.unsqueeze(-2) - self.loc) * (1 / self.scale)
        log_normals = -standard.square().sum(-1) / 2 - self.scale.log().sum(-1)
        constant = self.event_shape[0] * math.log(2 * math.pi) / 2
        return (self.logits.log_softmax(-1) + log_normals).logsumexp(-1) - constant

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draws ``(*sample_shape, *, d)`` with implicit gradients."""
        with torch.no_grad():
            chosen = Categorical(logits=self.logits).sample(sample_shape)
            places = chosen[..., None, None].expand(*chosen.shape, 1, *self.event_shape)
            loc, scale = (
                each.expand(*chosen.shape, *each.shape[-2:]).gather(-2, places).squeeze(-2)
                for each in (self.loc, self.scale)
            )
            draws = loc + scale * torch.randn_like(loc)
        return self._moving(draws) if torch.is_grad_enabled() else draws

    def weighted_rsample(self, particles: int) -> tuple[Tensor, Tensor]:
        """Draws of every component with the weights under which their mean estimates E_q.

        Args:
            particles: draws a datum; the next multiple of C is taken.

        Returns:
            u ``(K, *, d)`` and weights ``(K, *)``, which sum to one over K.
        """
        each = math.ceil(particles / self.logits.shape[-1])
        noise = torch.randn(each, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        draws = (self.loc + self.scale * noise).movedim(-2, 0).flatten(0, 1)
        weights = (self.probs / each).movedim(-1, 0).unsqueeze(1)
        return draws, weights.expand(-1, each, *self.batch_shape).flatten(0, 1)

    def _moving(self, draws: Tensor) -> Tensor:
        """The draws, with their first and second derivatives in the parameters.

        A Newton step from where they are, with the slope held fixed, gives them one order of
        derivatives more; their values stay.
        """
        with torch.no_grad():
            reached, slope = self._reached(draws), self._slope(draws)
        for _ in range(2):
            change = (self._reached(draws) - reached).unsqueeze(-1)
            draws = draws - torch.linalg.solve_triangular(slope, change, upper=False).squeeze(-1)
        return draws

    def _reached(self, u: Tensor) -> Tensor:
        """F_i(u_i | u_1 ... u_{i-1}), or F_i - 1 where that is nearer to zero, ``(*, d)``."""
        given, tails = self._conditionals(u)[:2]
        return (given * tails).sum(-2)

    def _slope(self, u: Tensor) -> Tensor:
        """dF / du, lower triangular, ``(*, d, d)``."""
        given, tails, standard, log_normals = self._conditionals(u)
        share = given * (tails - (given * tails).sum(-2, keepdim=True))
        densities = (given * log_normals.exp()).sum(-2)
        return (share.mT @ (-standard / self.scale)).tril(-1) + densities.diag_embed()

    def _conditionals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What F is made of, each ``(*, C, d)``.

        pi_c given u_1 ... u_{i-1}; each component's own F_i, or F_i - 1 where that of the mixture
        has more digits; u_i in each component's units, and its log-density there.
        """
        standard = (u.unsqueeze(-2) - self.loc) / self.scale
        log_normals = -standard.square() / 2 - (self.scale * math.sqrt(2 * math.pi)).log()
        before = self.logits.unsqueeze(-1) + log_normals.cumsum(-1) - log_normals
        given = before.softmax(-2)
        below, above = (torch.erfc(side * standard / math.sqrt(2)) / 2 for side in (-1, 1))
        upper = ((given * below).sum(-2, keepdim=True) > 0.5).expand_as(below)
        return given, torch.where(upper, -above, below), standard, log_normals


@lru_cache
def _directions(components: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where the components' means stand at the start, in their standard deviations, ``(C, d)``.

    Neighbouring latents differ in the order of the components; the mean over components is zero.
    """
    frequencies = 1 + torch.arange(dim, dtype=dtype, device=device) % max(components - 1, 1)
    return SPREAD * math.sqrt(2) * cosines(components, frequencies)


@dataclass(frozen=True)
class NormalMixture(Family):
    """Mixture of normals with diagonal covariances: several modes, tails, and bent ridges.

    A row holds C logits, the C locs and the C raw scales; means stand half a standard deviation
    apart where the locs agree, so that rows of zeros have components which differ.  An ascent
    takes at least C draws of a datum at each step.

    Attributes:
        dim: d, the number of latents of a datum.
        components: C, the number of normals.

    Raises:
        ValueError: if there are no components.

    Example:
        >>> import torch
        >>> NormalMixture(3, components=4)(torch.zeros(5, 28)).mean.shape
        torch.Size([5, 3])
    """

    dim: int
    components: int = 16
    patience: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(
                f"NormalMixture needs components >= 1; got {self.components}. Use 1 for a normal."
            )

    @property
    def size(self) -> int:
        """C (2 d + 1)."""
        return self.components * (2 * self.dim + 1)

    def __call__(self, rows: Tensor) -> MixtureOfNormals:
        """Rows ``(*, size)`` to a mixture over ``(d,)`` with batch shape ``(*)``."""
        each = self.components * self.dim
        logits, *parts = rows.split([self.components, each, each], -1)
        loc, raw = (part.unflatten(-1, (self.components, self.dim)) for part in parts)
        scale = positive(raw)
        return MixtureOfNormals(logits, loc + scale * self._directions(rows), scale)

    def rows(self, distribution: Distribution) -> Tensor:
        """Rows with the mean and standard deviation of a distribution over ``(d,)``."""
        base = innermost(distribution)
        if self.contains(distribution):
            logits, scale = base.logits, base.scale
            loc = base.loc - scale * self._directions(scale)
        else:
            loc, scale = (
                moment.unsqueeze(-2).expand(*moment.shape[:-1], self.components, self.dim)
                for moment in (distribution.mean, distribution.stddev)
            )
            between = self._directions(scale).square().mean(0)
            logits, scale = torch.zeros_like(loc[..., 0]), scale / (1 + between).sqrt()
        return torch.cat([logits, loc.flatten(-2), raw_of(scale).flatten(-2)], -1)

    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a mixture over ``(d,)`` of as many normals."""
        base = innermost(distribution)
        return (
            distribution.event_shape == (self.dim,)
            and isinstance(base, MixtureOfNormals)
            and base.loc.shape[-2] == self.components
        )

    def _directions(self, like: Tensor) -> Tensor:
        return _directions(self.components, self.dim, like.dtype, like.device)
