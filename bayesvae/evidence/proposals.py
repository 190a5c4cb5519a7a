"""Distributions over the latents of a datum to draw from: what log p(x) is estimated by.

All densities are those of u, the latents as one real vector (`bayesvae.core.coordinates`).  A
proposal may have to be fitted to each datum first.  What it finds there are tensors, made once a
batch, on which its draws and densities then depend: functions of them can be traced and compiled,
and are the same for every batch.  An estimate stays what it is however well a proposal was fitted,
because the draws that it rests on are fresh ones.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesvae.compiler import When
from bayesvae.core.coordinates import Coordinates, Point
from bayesvae.families import Family, MultivariateNormal
from bayesvae.optima import (
    DEFAULT_ASCENT,
    LOOK,
    Ascender,
    Ascent,
    StandardisedBatch,
    masked,
    standardised_batch,
)

State = tuple[Any, ...]
"""What a proposal knows of a batch besides the batch itself: tensors, or tuples of them."""


class Budget(NamedTuple):
    """What a search may rely on.

    Attributes:
        modules: whose parameters the pair's programs read.
        compile: "auto", True or False.
        batches: how many there will be.
    """

    modules: Sequence[nn.Module] = ()
    compile: When = "auto"
    batches: int | None = None


PROPOSALS = "proposals.GUIDE, proposals.PRIOR, proposals.optimum() or a proposals.mixture of them"
"""What there is, in code."""
Search = Callable[[State], State]
"""From a batch's state to a better one."""


def _nothing(coordinates: Coordinates, x: Tensor, index: Tensor | None) -> State:
    return ()


def _no_search(coordinates: Coordinates, budget: Budget) -> Search:
    return lambda state: state


class Proposal(NamedTuple):
    """A distribution over the local latents of each datum.

    Attributes:
        name: in words.
        draw: of ``(coordinates, state, K, x, index)``, u ``(K, B, D)``.
        log_density: of ``(state, point)``, ``(K, B)``.
        by_guide: whether it needs the guide's density there.
        start: of ``(coordinates, x, index)``, the state of a batch before any search.
        search: of ``(coordinates, budget)``, a search that serves batch after batch.
        at_once: how many draws of a datum the search makes together.
    """

    name: str
    draw: Callable[[Coordinates, State, int, Tensor, Tensor | None], Tensor]
    log_density: Callable[[State, Point], Tensor]
    by_guide: bool
    start: Callable[[Coordinates, Tensor, Tensor | None], State] = _nothing
    search: Callable[[Coordinates, Budget], Search] = _no_search
    at_once: int = 0

    def require(self, coordinates: Coordinates) -> None:
        """Refuses latents whose density under this proposal is not known.

        Raises:
            ValueError: if it needs the guide's density, which is an integral.
        """
        if self.by_guide:
            coordinates.require_density()

    def log_weights(
        self, coordinates: Coordinates, state: State, k: int, x: Tensor, index: Tensor | None
    ) -> Tensor:
        """log p(x_n, u_n) minus its own log-density at fresh draws, ``(K, B)``."""
        u = self.draw(coordinates, state, k, x, index)
        point = coordinates.at(u, x, index, guide=self.by_guide)
        return point.log_joint - self.log_density(state, point)

    def fit(
        self, coordinates: Coordinates, budget: Budget
    ) -> Callable[[Tensor, Tensor | None], State]:
        """The function of ``(x, index)`` that finds the state of batch after batch."""
        search = self.search(coordinates, budget)
        return lambda x, index: search(self.start(coordinates, x, index))


GUIDE = Proposal(
    "the guide",
    lambda coordinates, _, k, x, index: coordinates.draws(k, x, index),
    lambda _, point: point.log_guide,
    by_guide=True,
)
"""The pair's own guide: near the posterior if it is any good."""
PRIOR = Proposal(
    "the prior",
    lambda coordinates, _, k, x, index: coordinates.prior_draws(k, x, index),
    lambda _, point: point.log_prior,
    by_guide=False,
)
"""The model's prior: owes nothing to the guide, and far from the posterior of much data."""


class _Best(NamedTuple):
    """The best member of a family for each datum: rows of it in v, and the standardised batch.

    Attributes:
        members: the family for a number of latents, the same one at every call.
        ascent: how rows are sought.
    """

    members: Callable[[int], Family]
    ascent: Ascent

    def q(self, rows: Tensor, *batch: Any) -> Distribution:
        batch = StandardisedBatch(*batch)
        return masked(self.members(batch.loc.shape[-1])(rows), batch.mask)

    def start(self, coordinates: Coordinates, x: Tensor, index: Tensor | None) -> State:
        own, batch = standardised_batch(coordinates.guide, coordinates, x, index)
        return self.members(coordinates.size).rows(batch.guide(own)), *batch

    def search(self, coordinates: Coordinates, budget: Budget) -> Search:
        def log_joint(v: Tensor, *batch: Any) -> Tensor:
            return StandardisedBatch(*batch).log_joint(coordinates, v)

        family = self.members(coordinates.size)
        ascent, options = self.ascent.patient_with(family), budget._asdict()
        climb = Ascender(log_joint, self.q, ascent, options.pop("modules"), **options)

        def found(state: State) -> State:
            rows, *batch = state
            prior = family.rows(StandardisedBatch(*batch).prior(coordinates))
            rows = climb.better_start(torch.stack([rows, prior]), *batch)
            return climb(rows, *batch).rows, *batch

        return found

    def draw(
        self, coordinates: Coordinates, state: State, k: int, x: Tensor, index: Tensor | None
    ) -> Tensor:
        return StandardisedBatch(*state[1:]).standardised.to_u(self.q(*state).sample((k,)))

    def log_density(self, state: State, point: Point) -> Tensor:
        batch = StandardisedBatch(*state[1:])
        v = batch.standardised.to_v(point.u)
        return self.q(*state).log_prob(v) - batch.log_determinant


def optimum(
    family: Callable[[int], Family] = MultivariateNormal, ascent: Ascent = DEFAULT_ASCENT
) -> Proposal:
    """The best member of a family for each datum by itself, argmax L[q], found by gradient ascent.

    It owes to the guide only where the search begins and in which units, so it is the proposal for
    a guide that guesses badly. It leans to the inside of a posterior that is wider in some
    direction than any member can be: mix it with the guide or the prior to be safe.

    Args:
        family: the maker of a family from the number of latents D; acts in the guide's
            standardised coordinates.
        ascent: how the optimum is sought. Ending early makes the weights uneven, not wrong.

    Raises:
        ValueError: if a number of the ascent is out of range.
        TypeError: if ``family`` makes none from a number.

    Example:
        >>> optimum().name
        'the best MultivariateNormal of each datum'
    """
    ascent.require()
    try:
        name = type(family(1)).__name__
    except (TypeError, AttributeError) as error:
        raise TypeError(
            "optimum takes a maker, from a number of latents to a family; got "
            f"{family!r}. Use families.MultivariateNormal, without a number."
        ) from error
    best = _Best(lru_cache(maxsize=None)(family), ascent)
    return Proposal(
        f"the best {name} of each datum",
        best.draw,
        best.log_density,
        by_guide=False,
        start=best.start,
        search=best.search,
        at_once=max(LOOK, 3 * ascent.particles),  # a gradient holds about three times a draw
    )


class _Mixed(NamedTuple):
    """A mixture; its state is those of its parts."""

    parts: tuple[Proposal, ...]
    shares: tuple[float, ...]

    def start(self, coordinates: Coordinates, x: Tensor, index: Tensor | None) -> State:
        return tuple(part.start(coordinates, x, index) for part in self.parts)

    def search(self, coordinates: Coordinates, budget: Budget) -> Search:
        searches = [part.search(coordinates, budget) for part in self.parts]

        def found(states: State) -> State:
            return tuple(better(each) for better, each in zip(searches, states, strict=True))

        return found

    def draw(
        self, coordinates: Coordinates, states: State, k: int, x: Tensor, index: Tensor | None
    ) -> Tensor:
        each = zip(self.parts, states, strict=True)
        u = torch.stack([part.draw(coordinates, state, k, x, index) for part, state in each])
        weights = torch.tensor(self.shares).to(u)
        chosen = torch.multinomial(weights, u[0, ..., 0].numel(), replacement=True)
        chosen = chosen.reshape(1, *u.shape[1:-1], 1)
        return u.gather(0, chosen.expand(1, *u.shape[1:]))[0]

    def log_density(self, states: State, point: Point) -> Tensor:
        each = zip(self.parts, states, strict=True)
        densities = torch.stack([part.log_density(state, point) for part, state in each])
        weights = torch.tensor(self.shares).to(densities).log()
        return (densities + weights[:, None, None]).logsumexp(0)


def mixture(*parts: Proposal, shares: tuple[float, ...] | None = None) -> Proposal:
    """The mixture of proposals, a defensive one if a part is wide.

    Args:
        *parts: the proposals.
        shares: their weights; equal ones if None.

    Raises:
        ValueError: if shares are not positive numbers, one a part, that sum to one.

    Example:
        >>> mixture(GUIDE, optimum(), shares=(0.1, 0.9)).name
        'a mixture of the guide and the best MultivariateNormal of each datum'
    """
    shares = shares or (1 / max(1, len(parts)),) * len(parts)
    if not parts or len(shares) != len(parts) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"mixture needs one positive share a part, summing to one; got {shares} for "
            f"{len(parts)} parts."
        )
    mixed = _Mixed(parts, shares)
    return Proposal(
        "a mixture of " + " and ".join(part.name for part in parts),
        mixed.draw,
        mixed.log_density,
        by_guide=any(part.by_guide for part in parts),
        start=mixed.start,
        search=mixed.search,
        at_once=max(part.at_once for part in parts),
    )
