"""log p(x) and the ELBO of a pair, per datum, by draws of a proposal.

The guide is the proposal that is always at hand.  Where it is narrower than the posterior its
weights have a heavy tail, which the estimate's k-hat tells; a mixture with a wide proposal cannot
miss what one of its parts covers ("Safe and Effective Importance Sampling", Owen and Zhou, 2000).
Naive sampling from the prior is here for comparison: it fails as soon as the data say much.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from bayesvae.compiler import Compiled, When, frames_of_the_package
from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.estimates import (
    TRUSTED,
    Estimate,
    Weights,
    concatenate,
    require_particles,
    weights,
)
from bayesvae.core.evaluation import conditioned, evaluating, first_batch, on_device, require_a
from bayesvae.core.memory import MEMORY, bytes_per_draw, chunks
from bayesvae.core.pair import Pair, require_pair
from bayesvae.core.programs import Program
from bayesvae.data import sequential
from bayesvae.evidence.proposals import GUIDE, PROPOSALS, Budget, Proposal, State


class _Cut(NamedTuple):
    """Data in batches of at most so many rows, and draws that fit the budget.

    Attributes:
        source: of batches.
        rows: of the largest of them.
        draws: of all data of a batch together.
        particles: of each datum in all.
    """

    source: Any
    rows: int
    draws: int
    particles: int

    def at_once(self, rows: int) -> int:
        """How many draws of each of so many data are made together."""
        return max(1, min(self.particles, self.draws // rows))

    @property
    def calls(self) -> int:
        """How often draws are made."""
        return len(self.source) * math.ceil(self.particles / self.at_once(self.rows))


def _cut(data: Any, memory: int, per_draw: int, particles: int, together: int) -> _Cut:
    """The data cut for a proposal whose search makes ``together`` draws of each at once, or 0."""
    rows = chunks(memory, per_draw, min(particles, together or particles)).rows
    return _Cut(sequential(data, rows), rows, memory // per_draw, particles)


def _estimate(
    pair: Pair,
    data: Any,
    particles: int,
    draw_shared: bool,
    memory: int,
    compile: When,
    progress: bool,
    finish: Callable[[Weights, str], Estimate],
    name: str,
    proposal: Proposal = GUIDE,
) -> Estimate:
    require_pair(pair)
    require_particles(particles=particles)
    require_a(Proposal, PROPOSALS, proposal=proposal)
    with evaluating(pair):
        x, index = first_batch(pair, data)
        model, guide, given = conditioned(pair, x, index, draw_shared)
        coordinates, weight = _weight_under(proposal, model, guide, x, index)
        state = proposal.start(coordinates, x, index)
        per_draw = bytes_per_draw(lambda: weight(x, index, state, 1), len(x))
        cut = _cut(data, memory, per_draw, particles, proposal.at_once)
        of_batch = Compiled(weight, [pair], when=compile, calls=cut.calls, name=f"The {name}")
        fitted = proposal.fit(coordinates, Budget([pair], compile, len(cut.source)))
        parts = []
        with tqdm(total=cut.source.size, disable=not progress, unit="datum", desc=name) as bar:
            for x, index in on_device(pair, cut.source):
                draw = partial(of_batch, x, index, fitted(x, index))
                found = weights(lambda k, draw=draw: draw(k)[0], particles, cut.at_once(len(x)))
                parts.append(finish(found, given))
                bar.update(len(x))
    return concatenate(parts)


LogWeight = Callable[[Tensor, Tensor | None, State, int], list[Tensor]]
"""``(x, index, state, k)`` to fresh log-weights ``(k, B)``."""


def _weight_under(
    proposal: Proposal, model: Program, guide: Program, x: Tensor, index: Tensor | None
) -> tuple[Coordinates | None, LogWeight]:
    """The coordinates of the latents, if the proposal needs any, and the log-weights under it."""
    if proposal is GUIDE:  # of any guide, over discrete latents too

        def under_guide(x: Tensor, index: Tensor | None, _: State, k: int) -> list[Tensor]:
            return [trace.log_terms(model, guide, x, index, particles=k).local.log_weight]

        return None, under_guide
    coordinates = Coordinates(model, guide, x, index)
    proposal.require(coordinates)

    def under_proposal(x: Tensor, index: Tensor | None, state: State, k: int) -> list[Tensor]:
        return [proposal.log_weights(coordinates, state, k, x, index)]

    return coordinates, under_proposal


def log_evidence(
    pair: Pair,
    data: Any,
    particles: int = 1000,
    *,
    proposal: Proposal = GUIDE,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = False,
) -> Estimate:
    """log p(x) by importance sampling: a lower bound in expectation.

    A proposal narrower than the posterior makes the weights' tail heavy: then the value is low,
    its error too small, the effective sample size a few, and k-hat above 0.7, which a warning
    tells.  `bayesvae.annealed_evidence` is the remedy.  Nothing of the pair is changed.

    Args:
        pair: the pair.
        data: a tensor ``(N, *event)``, a torch ``Dataset`` or a loader.
        particles: K, exactly so many for each datum.
        proposal: what to draw from: `proposals.GUIDE`, `proposals.PRIOR`, a
            `proposals.optimum` for each datum, or a `proposals.mixture` of them.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget, bytes; work is cut to fit.
        compile: "auto" to compile the log-weights once that will pay, True at once, False never.
        progress: whether to show a bar.

    Returns:
        Per datum, in the order of the data; conditional on the shared latents, if there are any
        (``given`` says so).

    Raises:
        ValueError: if the pair is not sound or its guide has a point mass.

    Example:
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> model = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)
        >>> estimate = log_evidence(ppca(model), torch.zeros(4, 3), particles=10)
        >>> torch.allclose(estimate.value.float(), model.log_evidence(torch.zeros(4, 3)))
        True
    """
    estimate = _estimate(
        pair,
        data,
        particles,
        draw_shared,
        memory,
        compile,
        progress,
        Weights.log_evidence,
        "log p(x)",
        proposal,
    )
    doubted = ~estimate.trusted
    if doubted.any():
        size = estimate.effective_sample_size[doubted].median()
        warnings.warn(
            f"k-hat is above {TRUSTED} for {int(doubted.sum())} of {len(estimate.value)} data: "
            f"{proposal.name} misses a part of the posterior there, so log p(x) is likely to be "
            "higher and its error larger than estimated. Use annealed_evidence(...), or a wider "
            f"proposal. Their median effective sample size is {size:.0f} of {particles}.",
            UserWarning,
            stacklevel=frames_of_the_package(),
        )
    return estimate


def elbo_per_datum(
    pair: Pair,
    data: Any,
    particles: int = 100,
    *,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = False,
) -> Estimate:
    """The guide's own bound L[q_phi] of log p(x), per datum.

    Args:
        pair: the pair.
        data: a tensor ``(N, *event)``, a torch ``Dataset`` or a loader.
        particles: K, exactly so many for each datum.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget, bytes; work is cut to fit.
        compile: "auto" to compile the log-weights once that will pay, True at once, False never.
        progress: whether to show a bar.

    Returns:
        Per datum, in the order of the data, under the conditions of `log_evidence`.

    Raises:
        ValueError: if the pair is not sound or its guide has a point mass.
    """
    return _estimate(
        pair, data, particles, draw_shared, memory, compile, progress, Weights.elbo, "ELBO"
    )
