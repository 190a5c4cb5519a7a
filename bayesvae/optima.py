"""The best q of every family for one batch, and log p(x) from all of them: what `compare` repeats.

Families act on the latents of a datum as one real vector u, in coordinates v = (u - m) / s with m
and s the guide's mean and standard deviation of the datum, where posteriors have about unit scale
and one step size suits them all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae import trace
from bayesvae.ascent import Ascender, Ascent, Optimum
from bayesvae.compiled import Compiled, When
from bayesvae.distributions import bare, support_of, unwrapped
from bayesvae.estimates import Estimate, weights
from bayesvae.families import Family
from bayesvae.frames import Frame
from bayesvae.latents import Coordinates
from bayesvae.pair import Pair
from bayesvae.programs import Program


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


def _member(q: Distribution | None, frame: Frame) -> Distribution:
    """The guide in v as families can read it: mean zero, unit standard deviations."""
    zero = torch.zeros_like(frame.loc)
    if isinstance(q, torch.distributions.MultivariateNormal):
        tril = q.scale_tril / frame.scale.unsqueeze(-1)
        return dist.MultivariateNormal(zero, scale_tril=tril)
    return dist.Normal(zero, torch.ones_like(zero)).to_event(1)


class Compared(NamedTuple):
    """What one batch adds to a split."""

    guide: Estimate
    log_evidence: Estimate
    bounds: dict[str, Estimate]
    optima: dict[str, Optimum]
    own: str | None


class Settings(NamedTuple):
    """What holds for all batches.

    Attributes:
        families: makers of families from the number of latents.
        particles: draws for each bound.
        evidence_particles: draws for log p(x).
        ascent: how the optimum is sought.
        memory: budget, bytes.
        per_draw: what one draw takes of it.
        compile: "auto", True or False.
    """

    families: Sequence[Callable[[int], Family]]
    particles: int
    evidence_particles: int
    ascent: Ascent
    memory: int
    per_draw: int
    compile: When

    def at_once(self, rows: int) -> int:
        """How many draws of so many data fit the budget."""
        return max(1, self.memory // (self.per_draw * rows))


class Comparer:
    """Compares batch after batch, so that what was compiled for one of them serves the others."""

    def __init__(
        self,
        pair: Pair,
        programs: tuple[Program, Program],
        coordinates: Coordinates | None,
        settings: Settings,
        batches: int,
    ) -> None:
        self.pair, self.settings, self.batches = pair, settings, batches
        self.model, self.guide = programs
        self.coordinates = coordinates
        self._ascenders: dict[str, Ascender] = {}

        def compiled(function: Callable[..., Sequence[Tensor]], name: str) -> Compiled:
            return Compiled(function, [pair], when=settings.compile, name=f"{name} in compare")

        self._guide_weight = compiled(self._weight_under_guide, "The guide's log-weight")
        self._value = compiled(lambda v, *frame: [self._log_joint(v, *frame)], "The log joint")
        self._ends = compiled(self._both_ends, "The pooled weights")

    def __call__(self, x: Tensor, index: Tensor | None) -> Compared:
        """What one batch adds to a split."""
        settings, at_once = self.settings, self.settings.at_once(len(x))

        def guide_weight(k: int) -> Tensor:
            return self._guide_weight(x, index, k)[0]

        amortized = weights(guide_weight, settings.particles, at_once).elbo()
        if self.coordinates is None:
            proposal = weights(guide_weight, settings.evidence_particles, at_once)
            return Compared(amortized, proposal.log_evidence(), {}, {}, None)
        own, frame = self._frame(x, index)
        found = self._optima(own, frame)
        optima = {name: optimum for name, (_, optimum) in found.items()}
        bounds, members = {}, {name: family for name, (family, _) in found.items()}
        for name, family in members.items():
            q = frame.masked(family(optima[name].rows))
            bounds[name] = weights(
                partial(self._under, q, frame), settings.particles, at_once
            ).elbo()
        parts = [frame.masked(members[name](optima[name].rows)) for name in members]
        pooled = partial(self._pooled, parts, frame)
        proposal = weights(pooled, settings.evidence_particles, at_once)
        home = next((n for n, f in members.items() if own is not None and f.contains(own)), None)
        return Compared(amortized, proposal.log_evidence(), bounds, optima, home)

    def _frame(self, x: Tensor, index: Tensor | None) -> tuple[Distribution | None, Frame]:
        """The guide as a distribution of u, if it is one, and the coordinates that it gives."""
        q = _as_one_vector(self.guide, x, index)
        if q is not None:
            return q, Frame(x, index, q.mean, q.stddev, self.coordinates.mask(x, index))
        return None, Frame.by_draws(self.coordinates, x, index)

    def _optima(self, own: Distribution | None, frame: Frame) -> dict[str, tuple[Family, Optimum]]:
        """The best member of each family, started where the narrower ones ended."""
        starts = [_member(own, frame), frame.prior(self.coordinates)]
        found = {}
        for make in self.settings.families:
            family = make(frame.loc.shape[-1])
            name = type(family).__name__
            ascender = self._ascender(name, family)
            candidates = torch.stack([family.rows(start) for start in starts])
            optimum = ascender(ascender.better_start(candidates, *frame), *frame)
            found[name] = family, optimum
            starts.append(family(optimum.rows))
        return found

    def _log_joint(self, v: Tensor, *frame: Any) -> Tensor:
        """log p(x_n, v_n), ``(K, B)``."""
        return Frame(*frame).log_joint(self.coordinates, v)

    def _under(self, q: Distribution, frame: Frame, particles: int) -> Tensor:
        """Log-weights ``(K, B)`` of draws of q."""
        v = q.sample((particles,))
        return self._value(v, *frame)[0] - q.log_prob(v)

    def _pooled(self, parts: Sequence[Distribution], frame: Frame, particles: int) -> Tensor:
        """Log-weights of a mixture of the guide and every q, with equal shares.

        What one of them covers of the posterior cannot be missed by all ("Safe and Effective
        Importance Sampling", Owen and Zhou, 2000).
        """
        draws = [part.sample((particles,)) for part in parts]
        if self.coordinates.complete:
            u = self.coordinates.draws(particles, frame.x, frame.index)
            draws.append(frame.standardised.to_v(u))
        chosen = torch.randint(len(draws), draws[0].shape[:2], device=draws[0].device)
        stacked = torch.stack(draws)
        v = stacked.gather(0, chosen[None, ..., None].expand(1, *stacked.shape[1:]))[0]
        log_joint, *of_guide = self._ends(v, *frame)
        densities = torch.stack([*(part.log_prob(v) for part in parts), *of_guide])
        share = torch.tensor(float(len(densities))).log().to(v)
        return log_joint - (densities.logsumexp(0) - share)

    def _both_ends(self, v: Tensor, *frame: Any) -> list[Tensor]:
        """log p(x_n, v_n), and log q_phi(v_n | x_n) where it is known."""
        frame, coordinates = Frame(*frame), self.coordinates
        u = frame.standardised.to_u(v)
        point = coordinates.at(u, frame.x, frame.index, guide=coordinates.complete)
        ends = [point.log_joint] + [point.log_guide] * coordinates.complete
        return [end + frame.log_determinant for end in ends]

    def _weight_under_guide(self, x: Tensor, index: Tensor | None, k: int) -> list[Tensor]:
        terms = trace.log_terms(self.model, self.guide, x, index, particles=k)
        return [terms.local.log_weight]

    def _ascender(self, name: str, family: Family) -> Ascender:
        def q_of(rows: Tensor, *context: Any) -> Distribution:
            return Frame(*context).masked(family(rows))

        if name not in self._ascenders:
            self._ascenders[name] = Ascender(
                self._log_joint,
                q_of,
                self.settings.ascent,
                [self.pair],
                compile=self.settings.compile,
                batches=self.batches,
            )
        return self._ascenders[name]
