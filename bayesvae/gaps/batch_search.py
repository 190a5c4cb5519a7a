"""The best q of every family for one batch, and log p(x) from all of them: what `compare` repeats.

Families act on the latents of a datum as one real vector, in the coordinates of
`bayesvae.optima.standardised_coordinates`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.compiler import Compiled, When
from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.estimates import Estimate, weights
from bayesvae.core.pair import Pair
from bayesvae.core.programs import Program
from bayesvae.evidence.proposals import GUIDE, Proposal, mixture, optimum
from bayesvae.families import Family
from bayesvae.optima import (
    LOOK,
    Ascender,
    Ascent,
    Member,
    Optimum,
    Own,
    Posteriors,
    Refined,
    Refiner,
    Semi,
    StandardisedBatch,
    kept,
    masked,
    standardised_batch,
)

NOTHING: Mapping = MappingProxyType({})


class Compared(NamedTuple):
    """What one batch adds to a split.

    Attributes:
        guide: L[q_phi].
        importance: log p(x) from the pooled proposal.
        bounds: L[q*] by family.
        optima: where each ascent ended.
        own: the guide's own family among them.
        semi: L after k steps, by k.
        refined: where the steps ended.
        posteriors: every q.
    """

    guide: Estimate
    importance: Estimate
    bounds: Mapping[str, Estimate] = NOTHING
    optima: Mapping[str, Optimum] = NOTHING
    own: str | None = None
    semi: Mapping[int, Estimate] = NOTHING
    refined: Mapping[int, Refined] = NOTHING
    posteriors: Posteriors | None = None


class Settings(NamedTuple):
    """What holds for all batches.

    Attributes:
        families: makers of families from the number of latents.
        particles: draws for each bound.
        evidence_particles: draws for log p(x).
        ascent: how the optimum is sought.
        semi: how the guide is improved; None if it is not.
        memory: budget, bytes.
        per_draw: what one draw takes of it.
        compile: "auto", True or False.
    """

    families: Sequence[Callable[[int], Family]]
    particles: int
    evidence_particles: int
    ascent: Ascent
    semi: Semi | None
    memory: int
    per_draw: int
    compile: When

    def at_once(self, rows: int) -> int:
        """How many draws of so many data fit the budget."""
        return max(1, self.memory // (self.per_draw * rows))

    def rows_at_once(self, most: int) -> int:
        """How many data fit the budget while they are searched."""
        draws = max(self.ascent.particles, LOOK, 0 if self.semi is None else self.semi.particles)
        return max(1, min(most, self.memory // (self.per_draw * draws)))


class Comparer:
    """Compares batch after batch, so that what was compiled for one of them serves the others.

    Attributes:
        working: by route, what one step takes for a datum at most, bytes.
    """

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
        self.working: dict[str, int] = {}
        self._ascenders: dict[str, Ascender] = {}
        self._refiners: dict[str, Refiner] = {}
        makers = () if coordinates is None else settings.families
        made = (make(coordinates.size) for make in makers)
        self._families = {type(family).__name__: family for family in made}

        def compiled(function: Callable[..., Sequence[Tensor]], name: str) -> Compiled:
            return Compiled(function, [pair], when=settings.compile, name=f"{name} in compare")

        self._guide_weight = compiled(self._weight_under_guide, "The guide's log-weight")
        self._value = compiled(lambda v, *batch: [self._log_joint(v, *batch)], "The log joint")
        self._pooled = compiled(self._weight_under_all, "The pooled weights")

    def __call__(self, x: Tensor, index: Tensor | None) -> Compared:
        """What one batch adds to a split."""
        settings, at_once = self.settings, self.settings.at_once(len(x))

        def guide_weight(k: int) -> Tensor:
            return self._guide_weight(x, index, k)[0]

        amortized = weights(guide_weight, settings.particles, at_once).elbo()
        if not self._families:
            proposal = weights(guide_weight, settings.evidence_particles, at_once)
            return Compared(amortized, proposal.log_evidence())
        own, batch = standardised_batch(self.guide, self.coordinates, x, index)
        optima, best = self._optima(own, batch)
        home = next((n for n, m in best.items() if own is not None and own.within(m.family)), None)
        start = None if home is None else own.member(best[home].family)
        refined = self._refined(home, start, batch)
        reached = {k: Member(start.family, found.rows) for k, found in refined.items()}
        bounds = {name: self._bound(member, batch) for name, member in best.items()}
        evidence = self._evidence(best, batch)
        members = best if start is None else {"guide": start, **best}
        members = members | {route_of(k): member for k, member in reached.items()}
        return Compared(
            amortized,
            evidence,
            bounds,
            optima,
            home,
            {k: self._bound(member, batch) for k, member in reached.items()},
            refined,
            kept(batch, self.coordinates, members),
        )

    def _q(self, member: Member, batch: StandardisedBatch) -> Distribution:
        return masked(member.family(member.rows), batch.mask)

    def _bound(self, member: Member, batch: StandardisedBatch) -> Estimate:
        """L[q] by fresh draws."""
        under = partial(self._under, self._q(member, batch), batch)
        at_once = self.settings.at_once(len(batch.x))
        return weights(under, self.settings.particles, at_once).elbo()

    def _optima(
        self, own: Own | None, batch: StandardisedBatch
    ) -> tuple[dict[str, Optimum], dict[str, Member]]:
        """The best member of each family, started where the narrower ones ended."""
        starts = [batch.guide(own), batch.prior(self.coordinates)]
        optima, best = {}, {}
        for name, family in self._families.items():
            ascender = self._ascender(name, family)
            candidates = torch.stack([family.rows(start) for start in starts])
            optimum = ascender(ascender.better_start(candidates, *batch), *batch)
            optima[name], best[name] = optimum, Member(family, optimum.rows)
            starts.append(family(optimum.rows))
            if name not in self.working:
                self.working[name] = ascender.bytes_a_datum(optimum.rows, *batch)
        return optima, best

    def _refined(
        self, home: str | None, start: Member | None, batch: StandardisedBatch
    ) -> dict[int, Refined]:
        """What k steps from the guide reach, where it is a member of a family."""
        if start is None or self.settings.semi is None:
            return {}
        refiner = self._refiner(home, start.family)
        found = refiner(start.rows, *batch)
        for k in found:
            if route_of(k) not in self.working:
                taken = refiner.bytes_a_datum(start.rows, *batch) if k else 0
                self.working[route_of(k)] = taken
        return found

    def _log_joint(self, v: Tensor, *batch: Any) -> Tensor:
        """log p(x_n, v_n), ``(K, B)``."""
        return StandardisedBatch(*batch).log_joint(self.coordinates, v)

    def _under(self, q: Distribution, batch: StandardisedBatch, particles: int) -> Tensor:
        """Log-weights ``(K, B)`` of draws of q."""
        v = q.sample((particles,))
        return self._value(v, *batch)[0] - q.log_prob(v)

    def _evidence(self, best: Mapping[str, Member], batch: StandardisedBatch) -> Estimate:
        """log p(x) from a mixture of the guide, where its density is known, and every q."""
        found = [(member.rows, *batch) for member in best.values()]
        state = ((), *found) if self.coordinates.complete else tuple(found)

        def pooled(k: int) -> Tensor:
            return self._pooled(state, k, batch.x, batch.index)[0]

        at_once = self.settings.at_once(len(batch.x))
        return weights(pooled, self.settings.evidence_particles, at_once).log_evidence()

    def _weight_under_all(self, *args: Any) -> list[Tensor]:
        return [self._proposal.log_weights(self.coordinates, *args)]

    @cached_property
    def _proposal(self) -> Proposal:
        """What one part covers of the posterior cannot be missed by all."""
        found = [optimum(lambda _, family=family: family) for family in self._families.values()]
        return mixture(GUIDE, *found) if self.coordinates.complete else mixture(*found)

    def _weight_under_guide(self, x: Tensor, index: Tensor | None, k: int) -> list[Tensor]:
        terms = trace.log_terms(self.model, self.guide, x, index, particles=k)
        return [terms.local.log_weight]

    def _q_of(self, family: Family) -> Callable[..., Distribution]:
        return lambda rows, *context: masked(family(rows), StandardisedBatch(*context).mask)

    def _ascender(self, name: str, family: Family) -> Ascender:
        if name not in self._ascenders:
            self._ascenders[name] = Ascender(
                self._log_joint,
                self._q_of(family),
                self.settings.ascent.patient_with(family),
                [self.pair],
                compile=self.settings.compile,
                batches=self.batches,
            )
        return self._ascenders[name]

    def _refiner(self, name: str, family: Family) -> Refiner:
        if name not in self._refiners:
            self._refiners[name] = Refiner(
                self._log_joint,
                self._q_of(family),
                self.settings.semi,
                [self.pair],
                compile=self.settings.compile,
                batches=self.batches,
            )
        return self._refiners[name]


def route_of(steps: int) -> str:
    """The name of the way to q by some steps from the guide."""
    return f"semi-amortized, {steps} step{'' if steps == 1 else 's'}"
