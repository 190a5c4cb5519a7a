"""The local latents of a datum as one vector of real numbers.

A datum's latents z_n may be several, constrained, and depend on each other.  Every support that a
Pyro distribution may have is the image of some R^m under a bijection T, so that

    u_n = (T_1^-1(z_n1), T_2^-1(z_n2), ...)  in R^D,
    log p(x_n, u_n) = log p(x_n, z_n) + sum_s log |det dT_s / du_s|,

and what samplers and families need is one smooth density on R^D ("Automatic Differentiation
Variational Inference", Kucukelbir et al., 2017).  The model runs top down and each site is asked
for its support in turn, so a support may depend on the latents above it.
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from bayesvae.core import trace
from bayesvae.core.distributions import bare, support_of
from bayesvae.core.programs import Program, within


class Point(NamedTuple):
    """Densities at positions u of K particles and B data, in these coordinates, nats.

    Attributes:
        u: the positions, ``(K, B, D)``.
        log_prior: log p(u_n), ``(K, B)``.
        log_likelihood: log p(x_n | u_n), ``(K, B)``.
        log_guide: log q(u_n | x_n), ``(K, B)``, where it was asked for.
    """

    u: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    log_guide: Tensor | None = None

    @property
    def log_joint(self) -> Tensor:
        """log p(x_n, u_n), ``(K, B)``."""
        return self.log_prior + self.log_likelihood


class _Part(NamedTuple):
    """Where one site stands in u: so many of the entries, shaped ``(*plates, *event)``."""

    plates: torch.Size
    event: torch.Size

    @property
    def size(self) -> int:
        return prod(self.plates) * prod(self.event)

    def laid_out(self, u: Tensor) -> Tensor:
        """``(K, B, size)`` as the site has it: ``(K, *plates, B, *event)``."""
        shaped = u.reshape(*u.shape[:2], *self.plates, *self.event)
        return shaped.movedim(1, 1 + len(self.plates))

    def flat(self, value: Tensor) -> Tensor:
        """The inverse."""
        shaped = value.movedim(1 + len(self.plates), 1)
        return shaped.reshape(*shaped.shape[:2], self.size)

    def by_datum(self, value: Tensor) -> Tensor:
        """``(K, B, *plates, *event)`` of the site's value, plates that it is not in left out."""
        moved = value.movedim(1 + len(self.plates), 1)
        plates = [size for size in self.plates if size > 1]
        return moved.reshape(*moved.shape[:2], *plates, *moved.shape[2 + len(self.plates) :])


class _Unconstrained(Messenger):
    """Gives latents the values T(u), and adds up log |det dT / du|."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parts, self.values = parts, {}
        self.jacobians: list[tuple[Tensor, Tensor | bool | None]] = []

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["name"] in self.values:
            u, transform = self.parts[msg["name"]], _bijection(msg["fn"])
            if transform is not None:
                density = transform.log_abs_det_jacobian(u, msg["value"])
                self.jacobians.append((density, msg["mask"]))

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.parts:
            u, transform = self.parts[msg["name"]], _bijection(msg["fn"])
            msg["value"] = self.values[msg["name"]] = u if transform is None else transform(u)


def _bijection(distribution: Distribution) -> Transform | None:
    """From R^m onto the support; None where that is R^m itself."""
    support = support_of(distribution)
    if support is None or bare(support) is constraints.real:
        return None
    return biject_to(support)


class Coordinates:
    """The local latents of a pair's data in R^D.

    Args:
        model: the generative program, its shared latents fixed.
        guide: the guide, likewise.
        x: a batch ``(B, *event)`` to look at.
        index: its positions.

    Attributes:
        size: D.
        names: the latents' sites, in the order in which they stand in u.

    Raises:
        ValueError: if a local latent is discrete, or if the guide does not draw it.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> x = torch.zeros(4, 3)
        >>> coordinates = Coordinates(pair.model, pair.guide, x)
        >>> density = coordinates.at(torch.ones(2, 4, 1), x).log_joint
        >>> coordinates.size, density.shape
        (1, torch.Size([2, 4]))
    """

    def __init__(
        self, model: Program, guide: Program, x: Tensor, index: Tensor | None = None
    ) -> None:
        self.model, self.guide = model, guide
        self._dims = trace.nesting(model, guide, x, index)
        with torch.no_grad(), torch.random.fork_rng():
            sites = trace.run(model, guide, x, index, particles=2)
        _require_continuous(sites)
        self.complete = not any(
            site.auxiliary and site.data_plate is not None for site in sites.guide.values()
        )
        self._parts = {
            name: _part(site, self._inverse(site))
            for name, site in sites.model.items()
            if not site.observed and site.data_plate is not None
        }
        self.names = tuple(self._parts)
        self.size = sum(part.size for part in self._parts.values())

    @staticmethod
    def _inverse(site: trace.Site) -> Tensor:
        transform = _bijection(site.distribution)
        return site.value if transform is None else transform.inv(site.value)

    def _split(self, u: Tensor) -> dict[str, Tensor]:
        pieces = u.split([part.size for part in self._parts.values()], -1)
        named = zip(self._parts.items(), pieces, strict=True)
        return {name: part.laid_out(piece) for (name, part), piece in named}

    def _run(
        self, u: Tensor, x: Tensor, index: Tensor | None
    ) -> tuple[trace.Terms, Tensor | float, dict[str, Tensor]]:
        """The model's terms at u, the log-determinant ``(K, B)``, and the latents by name."""
        bijections = _Unconstrained(self._split(u))
        model = within(self.model, bijections)
        as_a_pair = {"particles": len(u), "dims": self._dims}
        terms = trace.log_terms(model, trace.silent, x, index, **as_a_pair)
        total: Tensor | float = 0.0
        for density, mask in bijections.jacobians:
            total = total + trace.per_datum(scale_and_mask(density, mask=mask), *u.shape[:2])
        return terms, total, bijections.values

    def at(
        self, u: Tensor, x: Tensor, index: Tensor | None = None, *, guide: bool = False
    ) -> Point:
        """The densities at u.

        Args:
            u: ``(K, B, D)``.
            x: the batch ``(B, *event)``.
            index: its positions.
            guide: whether log q(u | x) is wanted as well.

        Raises:
            ValueError: if log q is wanted of a guide with latents that the model does not have.
        """
        terms, jacobian, values = self._run(u, x, index)
        log_guide = None
        if guide:
            self.require_density()
            given = {"particles": len(u), "dims": self._dims}
            log_guide = trace.log_joint(self.guide, values, x, index, **given) + jacobian
        return Point(u, terms.local.log_prior + jacobian, terms.local.log_likelihood, log_guide)

    def mask(self, x: Tensor, index: Tensor | None = None) -> Tensor | None:
        """Which data count, ``(B,)``; None where no site is masked.

        Raises:
            ValueError: if some latents of a datum are masked and others not.
        """
        sites = trace.run(self.model, self.guide, x, index).model
        masks = [sites[name].mask for name in self.names]
        masks = [
            torch.as_tensor(True if mask is None else mask, device=x.device) for mask in masks
        ]
        if all(mask.all() for mask in masks):
            return None
        rows = [mask.expand(*mask.shape[:-1], len(x)).reshape(-1, len(x)) for mask in masks]
        counts = torch.cat(rows)
        if not (counts == counts[0]).all():
            raise ValueError(
                f"The latents of a datum count together or not at all; of {list(self.names)} a "
                "mask hides some. Put one poutine.mask around all of them."
            )
        return counts[0]

    def require_density(self) -> None:
        """Refuses a guide whose log q(u | x) is an integral.

        Raises:
            ValueError: if it has latents that the model does not have.
        """
        if not self.complete:
            raise ValueError(
                "The guide draws auxiliary latents, so its density of the others is an integral. "
                "Start from the prior, or use a guide without auxiliary sites."
            )

    def latents(self, u: Tensor, x: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """The latents at u ``(K, B, D)`` by name, ``(K, B, *plates, *event)``."""
        values = self._run(u, x, index)[2]
        return {name: part.by_datum(values[name]) for name, part in self._parts.items()}

    def of(self, sites: Mapping[str, trace.Site]) -> Tensor:
        """u ``(K, B, D)`` of a run of the model with K particles.

        Args:
            sites: the model's sites.
        """
        flat = []
        for name, part in self._parts.items():
            inverse = self._inverse(sites[name])
            rank = 2 + len(part.plates) + len(part.event)
            flat.append(part.flat(inverse.reshape((1,) * (rank - inverse.dim()) + inverse.shape)))
        return torch.cat(flat, -1)

    def prior_draws(self, particles: int, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Draws of the model's prior, ``(K, B, D)``."""
        as_a_pair = {"particles": particles, "dims": self._dims}
        return self.of(trace.run(self.model, trace.silent, x, index, **as_a_pair).model)

    def draws(self, particles: int, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Draws of the guide, ``(K, B, D)``."""
        return self.of(trace.run(self.model, self.guide, x, index, particles=particles).model)


def _part(site: trace.Site, u: Tensor) -> _Part:
    batch = len(site.distribution.batch_shape)
    return _Part(u.shape[1 : batch - 1], u.shape[batch:])


def _require_continuous(sites: trace.Sites) -> None:
    local = {n: s for n, s in sites.model.items() if s.data_plate is not None and not s.observed}
    missing = [name for name in local if name not in sites.guide]
    if missing or not local:
        raise ValueError(
            f"The guide has to draw every local latent of the model; missing {missing or 'all'}. "
            "Sample these sites inside the guide's data plate."
        )
    for name, site in local.items():
        support = support_of(site.distribution)
        discrete = support is not None and support.is_discrete
        if discrete or isinstance(site.base, dist.Delta):
            raise ValueError(
                f"Latents need a density on the real numbers; '{name}' is "
                f"{type(site.base).__name__}. Sum it out, or use log_evidence from the guide."
            )


class Standardised(NamedTuple):
    """Coordinates v = (u - loc) / scale, in which a posterior has about unit scale.

    Attributes:
        loc: of each datum, ``(B, D)``.
        scale: ``(B, D)``.
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def by(cls, draws: Tensor, floor: float = 1e-6) -> "Standardised":
        """By the mean and the standard deviation of draws ``(K, B, D)`` of the guide."""
        return cls(draws.mean(0), draws.std(0).clamp_min(floor))

    def to_u(self, v: Tensor) -> Tensor:
        """u of v, ``(K, B, D)``."""
        return self.loc + self.scale * v

    def to_v(self, u: Tensor) -> Tensor:
        """v of u, ``(K, B, D)``."""
        return (u - self.loc) / self.scale

    @property
    def log_determinant(self) -> Tensor:
        """log |det du / dv|, ``(B,)``: what a density of v has more than that of u."""
        return self.scale.log().sum(-1)
