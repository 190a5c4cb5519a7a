"""Coordinates in which one step size suits all posteriors, and the members of families in them.

With u the latents of a datum as one real vector (`bayesvae.core.coordinates`), m and s the guide's
mean and standard deviation of it,

    v = (u - m) / s,      q(u) = q_lambda((u - m) / s) / prod_i s_i,

so that a posterior has about unit scale in v and the guide's mean is at zero.  Rows lambda are
those of q in v; `Posteriors` keeps them, and gives back q in u.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, TransformedDistribution

from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates, Standardised
from bayesvae.core.distributions import bare, innermost, pyro_ready, support_of, unwrapped
from bayesvae.core.programs import Program
from bayesvae.families import Family

MOMENTS = 256
"""Draws a datum for the guide's mean and scale where no closed form is at hand."""


class StandardisedBatch(NamedTuple):
    """What tells one batch from another.

    Attributes:
        x: the data, ``(B, *event)``.
        index: their positions.
        loc: m, ``(B, D)``.
        scale: s, ``(B, D)``.
        mask: which data count, ``(B,)``; None or True for all.
    """

    x: Tensor
    index: Tensor | None
    loc: Tensor
    scale: Tensor
    mask: Tensor | bool | None

    @property
    def standardised(self) -> Standardised:
        """v of u."""
        return Standardised(self.loc, self.scale)

    @property
    def log_determinant(self) -> Tensor:
        """Of u in v, zero where a datum is masked out."""
        return scale_and_mask(self.standardised.log_determinant, mask=self.mask)

    def log_joint(self, coordinates: Coordinates, v: Tensor) -> Tensor:
        """log p(x_n, v_n) at v ``(K, B, D)``, ``(K, B)``."""
        u = self.standardised.to_u(v)
        return coordinates.at(u, self.x, self.index).log_joint + self.log_determinant

    def guide(self, own: "Own | None") -> Distribution:
        """The guide over v, where a search may begin; a normal of its moments if not known."""
        zero = torch.zeros_like(self.loc)
        standard = dist.Normal(zero, torch.ones_like(zero)).to_event(1)
        return standard if own is None else own.of_v

    def prior(self, coordinates: Coordinates) -> Distribution:
        """The normal over v with the moments of the model's prior, another place to begin."""
        v = self.standardised.to_v(coordinates.prior_draws(MOMENTS, self.x, self.index))
        return dist.Normal(v.mean(0), v.std(0).clamp_min(1e-3)).to_event(1)


def masked(q: Distribution, mask: Tensor | bool | None) -> Distribution:
    """q with the log-densities of data masked out at zero, as in the pair's own terms."""
    return q if mask is None else pyro_ready(q).mask(mask)


class Member(NamedTuple):
    """A member of a family for each datum.

    Attributes:
        family: turns rows into distributions.
        rows: lambda, ``(B, family.size)``, in v.
    """

    family: Family
    rows: Tensor


class Own(NamedTuple):
    """The guide's distribution of a datum's latents, where it is one over one real vector.

    Attributes:
        of_u: as the guide has it.
        of_v: the same in v; of a kind that is not known here, a normal of its moments.
    """

    of_u: Distribution
    of_v: Distribution

    def within(self, family: Family) -> bool:
        """Whether it is a member of a family."""
        return family.contains(self.of_u)

    def member(self, family: Family) -> Member | None:
        """It as a member of its family in v; None if it cannot be carried there exactly."""
        inside = self.within(family) and family.contains(self.of_v)
        return Member(family, family.rows(self.of_v)) if inside else None


def standardised_batch(
    guide: Program, coordinates: Coordinates, x: Tensor, index: Tensor | None
) -> tuple[Own | None, StandardisedBatch]:
    """The guide's distribution, and the batch standardised by it."""
    q, mask = _as_one_vector(guide, x, index), coordinates.mask(x, index)
    if q is None:
        draws = coordinates.draws(MOMENTS, x, index)
        return None, StandardisedBatch(x, index, *Standardised.by(draws), mask)
    batch = StandardisedBatch(x, index, q.mean, q.stddev, mask)
    return Own(q, _standardised(q, batch.loc, batch.scale)), batch


def _as_one_vector(guide: Program, x: Tensor, index: Tensor | None) -> Distribution | None:
    """The guide's distribution of u, where it is one with known moments over one real vector."""
    local = [s for s in trace.draws(guide, x, index).values() if s.data_plate is not None]
    local = [site for site in local if not site.observed]
    if len(local) != 1 or len(local[0].plates) != 1:
        return None
    q = unwrapped(local[0].distribution)
    if isinstance(q, torch.distributions.Normal):
        q = dist.Normal(q.loc.unsqueeze(-1), q.scale.unsqueeze(-1)).to_event(1)
    support = support_of(q)
    if support is None or bare(support) is not torch.distributions.constraints.real:
        return None
    try:
        loc, scale = q.mean, q.stddev
    except NotImplementedError:  # torch's word for moments without a closed form
        return None
    usable = torch.isfinite(loc).all() and torch.isfinite(scale).all() and (scale > 0).all()
    return q if len(q.event_shape) == 1 and usable else None


def _standardised(q: Distribution, loc: Tensor, scale: Tensor) -> Distribution:
    """q in v; of a kind that is not known here, a normal of its moments."""
    base = innermost(q)
    if hasattr(base, "standardised"):
        return base.standardised(loc, scale)
    centre = (q.mean - loc) / scale
    if isinstance(base, torch.distributions.MultivariateNormal):
        return dist.MultivariateNormal(centre, scale_tril=base.scale_tril / scale.unsqueeze(-1))
    if isinstance(base, torch.distributions.LowRankMultivariateNormal):
        factor, diagonal = base.cov_factor / scale.unsqueeze(-1), base.cov_diag / scale.square()
        return dist.LowRankMultivariateNormal(centre, cov_factor=factor, cov_diag=diagonal)
    return dist.Normal(centre, q.stddev / scale).to_event(1)


class Posteriors(NamedTuple):
    """Every q that was compared, datum by datum, on the CPU.

    Attributes:
        x: the data, ``(N, *event)``.
        index: their positions, ``(N,)``.
        latents: the sites that u is made of, in their order.
        loc: m, ``(N, D)``.
        scale: s, ``(N, D)``.
        members: by name: "guide" if the guide is a member of a family, a family's name for its
            best member, and "semi-amortized, k steps" for what k steps reach.
    """

    x: Tensor
    index: Tensor
    latents: tuple[str, ...]
    loc: Tensor
    scale: Tensor
    members: Mapping[str, Member]

    def q(self, name: str, data: slice | Tensor = slice(None)) -> Distribution:
        """A member as a distribution over u ``(D,)``, batch shape ``(N,)``.

        Args:
            name: one of ``members``.
            data: which data, as in ``x[data]``.

        Raises:
            ValueError: if there is no such member.

        Example:
            >>> from bayesvae import compare
            >>> from bayesvae.pairs import PPCA, ppca
            >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
            >>> split = compare(pair, torch.zeros(4, 3), progress=False).splits["train"]
            >>> split.posteriors.q("guide", slice(2)).sample((5,)).shape
            torch.Size([5, 2, 1])
        """
        if name not in self.members:
            raise ValueError(
                f"q takes one of {', '.join(map(repr, self.members))}; got {name!r}. A guide "
                "that is a member of no family that was fitted has to be run."
            )
        family, rows = self.members[name]
        to_u = AffineTransform(self.loc[data], self.scale[data], event_dim=1)
        return TransformedDistribution(family(rows[data]), [to_u])


def kept(
    batch: StandardisedBatch, coordinates: Coordinates, members: Mapping[str, Member]
) -> Posteriors:
    """What is kept of a batch."""
    index = torch.arange(len(batch.x)) if batch.index is None else batch.index
    return Posteriors(
        batch.x.cpu(),
        index.cpu(),
        coordinates.names,
        batch.loc.cpu(),
        batch.scale.cpu(),
        {name: Member(family, rows.cpu()) for name, (family, rows) in members.items()},
    )


def joined(parts: list[Posteriors]) -> Posteriors:
    """Those of consecutive batches as one."""

    def together(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    members = {
        name: Member(family, torch.cat([part.members[name].rows for part in parts]))
        for name, (family, _) in parts[0].members.items()
    }
    x, index, loc, scale = map(together, ("x", "index", "loc", "scale"))
    return Posteriors(x, index, parts[0].latents, loc, scale, members)
