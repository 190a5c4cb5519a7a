"""Annealing over data sets: log p(x) from below, and from both sides on the model's own data.

`bayesvae.evidence.ais` has the chains and the reasons.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from bayesvae.compiler import When
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.estimates import (
    Estimate,
    concatenate,
    mean_and_error,
    require_particles,
    weights,
)
from bayesvae.core.evaluation import conditioned, evaluating, first_batch, on_device, require_a
from bayesvae.core.memory import MEMORY
from bayesvae.core.pair import Pair, require_pair
from bayesvae.evidence.ais import Annealer, Annealing, Both, Path
from bayesvae.evidence.chains import chunked
from bayesvae.evidence.proposals import PROPOSALS, Proposal
from bayesvae.generate import blank, joint_draws

DEFAULT_ANNEALING = Annealing()
SETTLE = 100
"""Transitions at the posterior between the way forwards and the way back."""


def _annealers(
    pair: Pair,
    coordinates: Coordinates,
    data: Any,
    annealing: Annealing,
    transitions: int,
    memory: int,
    compile: When,
    progress: bool,
) -> Iterator[tuple[Annealer, Path, Tensor, Callable[[], Any]]]:
    """Batch after batch: its chains, their path, the positions of its data, and what ticks."""
    x, index = first_batch(pair, data)
    source = chunked(coordinates, x, index, data, annealing.chains, memory)
    transitions += 2 * (annealing.pilot + 1) if annealing.pilot else 0
    calls = len(source) * transitions * annealing.leapfrogs
    both = Both(coordinates, annealing.start, pair, compile, calls, len(source))
    total = source.size * transitions
    with tqdm(total=total, unit="transition", disable=not progress, desc="annealing") as bar:
        for x, index in on_device(pair, source):
            tick = partial(bar.update, len(x))
            annealer = Annealer(both, annealing, x, index)
            yield annealer, annealer.pilot(tick), index, tick


def require_sound(annealing: Annealing) -> None:
    """Refuses settings that make no sense.

    Raises:
        TypeError: if they are no settings, or do not start at a proposal.
        ValueError: if a number is out of range.
    """
    require_a(Annealing, "Annealing(temperatures=200)", annealing=annealing)
    require_a(Proposal, PROPOSALS, start=annealing.start)
    numbers = annealing._asdict()
    require_particles(**{k: numbers[k] for k in ("temperatures", "leapfrogs", "chains")})
    if annealing.pilot < 0 or not 0 < annealing.target < 1:
        raise ValueError(
            "Annealing needs pilot >= 0 and a target between 0 and 1; got "
            f"{annealing.pilot} and {annealing.target}. The defaults are 50 and 0.65."
        )


def _lower(log_weight: Tensor) -> Estimate:
    return weights(lambda _: log_weight, len(log_weight), len(log_weight)).log_evidence()


def _upper(log_weight: Tensor) -> Estimate:
    estimate = _lower(-log_weight)
    return estimate._replace(value=-estimate.value, bound="upper")


def annealed_evidence(
    pair: Pair,
    data: Any,
    annealing: Annealing = DEFAULT_ANNEALING,
    *,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Estimate:
    """log p(x) by annealed importance sampling: a lower bound in expectation.

    Args:
        pair: the pair, with continuous local latents; nothing of it is changed.
        data: a tensor ``(N, *event)``, a ``Dataset`` or a loader.
        annealing: how the path is walked.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget for what is computed at once, bytes.
        compile: "auto" to compile the gradients once that will pay, True at once, False never.
        progress: whether to show a bar.

    Returns:
        Per datum, in the order of the data.

    Raises:
        ValueError: if a latent is discrete, or a path cannot start at such a guide.

    Example:
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> model = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)
        >>> quick = Annealing(temperatures=10, leapfrogs=3, pilot=0)
        >>> x = torch.zeros(4, 3)
        >>> estimate = annealed_evidence(ppca(model), x, quick, progress=False)
        >>> torch.allclose(estimate.value.float(), model.log_evidence(x), atol=1e-3)
        True
    """
    require_pair(pair)
    require_sound(annealing)
    with evaluating(pair):
        x, index = first_batch(pair, data)
        model, guide, given = conditioned(pair, x, index, draw_shared)
        coordinates = Coordinates(model, guide, x, index)
        length = annealing.temperatures
        batches = _annealers(pair, coordinates, data, annealing, length, memory, compile, progress)
        parts = [_lower(annealer.forward(path, tick)[0]) for annealer, path, _, tick in batches]
    return concatenate(parts)._replace(given=given)


class Bracket(NamedTuple):
    """log p(x) from both sides.

    Attributes:
        lower: from chains run forwards.
        upper: from chains run backwards; its ``bound`` is "upper" if they began at exact draws of
            the posterior, else "none".
        seconds: time taken.
        x: the data ``(n, *event)``, if they were drawn from the model.
    """

    lower: Estimate
    upper: Estimate
    seconds: float
    x: Tensor | None = None

    @property
    def width(self) -> Tensor:
        """upper - lower, ``(n,)``, nats: by how much either may be wrong, in expectation."""
        return self.upper.value - self.lower.value

    def __str__(self) -> str:
        """A few lines."""
        sides = {"lower": self.lower.value, "upper": self.upper.value, "width": self.width}
        lines = [
            "{:<6} {:10.3f} +- {:.3f}".format(name, *mean_and_error(values))
            for name, values in sides.items()
        ]
        drawn = "" if self.x is None else " drawn from the model"
        head = f"log p(x) of {len(self.width)} data{drawn}, nats, {self.seconds:.1f} s"
        given = [f"All of it {self.lower.given}."] if self.lower.given else []
        if self.upper.bound == "none":
            lines[1] += "  (no bound: its chains began where others had ended)"
        return "\n".join([head, *lines, *given])


def bracket(
    pair: Pair,
    n: int,
    event: Sequence[int],
    annealing: Annealing = DEFAULT_ANNEALING,
    *,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Bracket:
    """Draws data from the model and brackets their log p(x).

    What the width tells of real data: how good these chains are on data that the model believes
    in. Nothing, if the model's data look unlike them.

    Args:
        pair: the pair, with continuous local latents; nothing of it is changed.
        n: how many data to draw.
        event: shape of one datum.
        annealing: how the path is walked.
        memory: budget for what is computed at once, bytes.
        compile: "auto" to compile the gradients once that will pay, True at once, False never.
        progress: whether to show a bar.

    Raises:
        ValueError: if a latent is discrete, or a path cannot start at such a guide.

    Example:
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> quick = Annealing(temperatures=10, leapfrogs=3, pilot=0)
        >>> found = bracket(pair, 20, (3,), quick, progress=False)
        >>> bool(found.width.abs().max() < 1e-2)
        True
    """
    require_pair(pair)
    require_particles(n=n)
    require_sound(annealing)
    began = time.perf_counter()
    with evaluating(pair):
        model, guide, given = conditioned(pair, *blank(pair, n, event))
        x, sites = joint_draws(pair, model, n, event)
        coordinates = Coordinates(model, guide, *first_batch(pair, x))
        exact, length = coordinates.of(sites), 2 * annealing.temperatures
        batches = _annealers(pair, coordinates, x, annealing, length, memory, compile, progress)
        lower, upper = [], []
        for annealer, path, index, tick in batches:
            lower.append(_lower(annealer.forward(path, tick)[0]))
            ends = exact[:, index].expand(annealing.chains, -1, -1)
            upper.append(_upper(annealer.reverse(path, ends, tick)))
    sides = [concatenate(side)._replace(given=given) for side in (lower, upper)]
    return Bracket(*sides, time.perf_counter() - began, x.cpu())


def sandwich(
    pair: Pair,
    data: Any,
    annealing: Annealing = DEFAULT_ANNEALING,
    *,
    settle: int = SETTLE,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Bracket:
    """log p(x) of real data from below, and from chains run back from where those had ended.

    The lower side is the bound of `annealed_evidence`. The other one would be an upper bound if
    the chains that are run back began at exact draws of the posterior; they begin at draws of a
    long Hamiltonian chain instead, so it is none, and the width tells agreement rather than
    error: a mode that no chain has found is missing on both sides.

    Args:
        pair: the pair, with continuous local latents; nothing of it is changed.
        data: a tensor ``(N, *event)``, a ``Dataset`` or a loader.
        annealing: how the path is walked.
        settle: further transitions at the posterior before the way back.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget for what is computed at once, bytes.
        compile: "auto" to compile the gradients once that will pay, True at once, False never.
        progress: whether to show a bar.

    Raises:
        ValueError: if a latent is discrete, or a path cannot start at such a guide.
    """
    require_pair(pair)
    require_sound(annealing)
    with evaluating(pair):
        x, index = first_batch(pair, data)
        model, guide, given = conditioned(pair, x, index, draw_shared)
        coordinates = Coordinates(model, guide, x, index)
        return sandwiched(
            pair,
            coordinates,
            data,
            annealing,
            given,
            settle=settle,
            memory=memory,
            compile=compile,
            progress=progress,
        )


def sandwiched(
    pair: Pair,
    coordinates: Coordinates,
    data: Any,
    annealing: Annealing,
    given: str,
    *,
    settle: int = SETTLE,
    memory: int,
    compile: When,
    progress: bool,
) -> Bracket:
    """`sandwich` in coordinates whose shared latents are fixed already, as ``given`` says."""
    began = time.perf_counter()
    length = 2 * annealing.temperatures + settle
    batches = _annealers(pair, coordinates, data, annealing, length, memory, compile, progress)
    lower, upper = [], []
    for annealer, path, _, tick in batches:
        log_weight, ends = annealer.forward(path, tick)
        ends = annealer.settled(path, ends, settle, tick)
        lower.append(_lower(log_weight))
        upper.append(_upper(annealer.reverse(path, ends, tick))._replace(bound="none"))
    sides = [concatenate(side)._replace(given=given) for side in (lower, upper)]
    return Bracket(*sides, time.perf_counter() - began)
