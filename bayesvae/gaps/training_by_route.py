"""One model trained by several routes, against the clock.

Amortization buys speed: one network serves all data, and a datum that comes late starts where the
others have brought the network.  A row a datum buys freedom: no gap but the family's.  Which one
gives the better *model* after so many seconds is a question to measure.  A guide's own bound
cannot answer it, since a poor guide hides a good model; so the models are compared by L[q*], found
for unseen data with the model held fixed, and by log p(x).

The clock runs while a route trains.  Copies of its pair are kept at moments each twice as late as
the one before, and looked at afterwards, out of its time.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayesvae.core.dependence import rows_of
from bayesvae.core.estimates import Estimate, require_particles
from bayesvae.core.pair import Pair, on_device_of
from bayesvae.data import rows, sequential
from bayesvae.evidence import elbo_per_datum
from bayesvae.families import Family
from bayesvae.gaps.comparison import Comparison
from bayesvae.gaps.decomposition import compare
from bayesvae.gaps.routes import JOINT, ROUTES, Parts, Route
from bayesvae.gaps.training_histories import Course, Moment, TrainingComparison
from bayesvae.training import History, fit

NO_END = 10**9
"""Epochs that no clock lets pass."""


def compare_training(
    model: nn.Module,
    encoder: nn.Module,
    family: Family,
    data: Any,
    unseen: Any,
    *,
    routes: Mapping[str, Route] = ROUTES,
    site: str = "z",
    seconds: float = 60.0,
    epochs: int | None = None,
    moments: int = 7,
    examined: int = 200,
    particles: int = 100,
    train: Callable[..., History] = fit,
    judge: Callable[..., Comparison] = compare,
    clock: Callable[[], float] = time.perf_counter,
    progress: bool = True,
) -> TrainingComparison:
    """Trains copies of one model by several routes, each for the same time.

    Every route has the same start, the same family and the same stream of random numbers; model
    and encoder are left as they are.  Checks of the pair and compiling count as training; what is
    looked at on the way does not, nor does a first step beforehand, on another copy, that takes on
    itself what only the first step of a process costs.

    Args:
        model: the generative program, untrained, with one latent a datum.
        encoder: maps ``(B, *event)`` to rows ``(B, family.size)``; unused by rows a datum.
        family: of every q.
        data: the training data: a tensor ``(N, *event)``, a ``Dataset`` or a loader.
        unseen: further data.
        routes: by name.
        site: name of the latent.
        seconds: for each route.
        epochs: a route also ends after so many passes; None for no such end.
        moments: how many are looked at besides the first, each twice as late as the one before.
        examined: how many of the data, and of the unseen ones, are looked at: the first ones.
        particles: draws a datum for a guide's own bound.
        train: `fit`, or a ``functools.partial`` of it with settings of your own.
        judge: `compare`, or a partial of it, for L[q*] and log p(x) of unseen data.
        clock: tells seconds; ``time.process_time`` where other processes take the processor.
        progress: whether to show a bar.

    Returns:
        The courses of all routes; print them, or see their figure.

    Raises:
        TypeError: if the routes are none.
        ValueError: if a number is out of its range, or a route's pair is not sound.
        FloatingPointError: if a route's loss is not finite.

    Example:
        >>> from bayesvae import families, networks, routes
        >>> from bayesvae.pairs import PPCA
        >>> x, family = torch.randn(20, 3), families.Normal(1)
        >>> model, encoder = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0), torch.nn.Linear(3, 2)
        >>> comparison = compare_training(
        ...     model, encoder, family, x[:10], x[10:], epochs=1, progress=False
        ... )
        >>> [course.moments[-1].steps for course in comparison.courses.values()]
        [1, 1, 1, 1]
    """
    _check_routes(routes)
    _check_numbers(model, seconds, epochs, moments, examined)
    require_particles(particles=particles)
    due = [seconds / 2**k for k in reversed(range(moments))]
    seed = int(torch.randint(2**31, ()))
    parts = Parts(model, encoder, family, sequential(data).size, site)
    with _same_numbers(seed):
        look = _Look(rows(data, examined), rows(unseen, examined)[0], particles, judge, seed)
    courses = {}
    with tqdm(total=2 * len(routes), disable=not progress) as bar:
        for name, route in routes.items():
            own = copy.deepcopy(parts)
            try:
                pair = route.pair(own)
                _warm(route.pair(copy.deepcopy(parts)), data, train)
                bar.set_description(f"{name}, training")
                with _same_numbers(seed):
                    kept, compiling = _trained(pair, route, data, train, due, epochs, clock)
                bar.update()
                bar.set_description(f"{name}, evaluation")
                courses[name] = Course(pair, tuple(look(pair, own, kept)), compiling)
            except (ValueError, FloatingPointError) as error:
                raise type(error)(f"Route '{name}': {error}") from error
            bar.update()
    return TrainingComparison(courses)


def _check_routes(routes: Any) -> None:
    made = isinstance(routes, Mapping) and list(routes.values())
    if not made or not all(isinstance(route, Route) for route in made):
        raise TypeError(
            f"compare_training needs one or more of bayesvae.routes by name; got {routes!r}. Use "
            'for example routes={"amortized": routes.AMORTIZED, "joint": routes.JOINT}.'
        )


def _check_numbers(
    model: nn.Module, seconds: float, epochs: int | None, moments: int, examined: int
) -> None:
    if not seconds > 0 or (epochs is not None and epochs < 1) or moments < 1 or examined < 2:
        raise ValueError(
            "compare_training needs seconds > 0, epochs >= 1 or None, moments >= 1 and examined "
            f">= 2; got {seconds}, {epochs}, {moments} and {examined}."
        )
    if next(model.parameters(), None) is None:
        raise ValueError(
            f"compare_training needs a model with parameters; got {type(model).__name__} without "
            "any. To compare guides under a fixed model use compare(...)."
        )


@contextmanager
def _same_numbers(seed: int) -> Iterator[None]:
    """The same random numbers each time; the caller's go on as if none were drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class _Copy(NamedTuple):
    """A pair's state at one moment of its training."""

    seconds: float
    steps: int
    state: dict[str, Tensor]


class _Watch:
    """Keeps copies of a pair at the seconds that are due, and ends its training after the last.

    What copying takes is not counted.
    """

    def __init__(self, pair: Pair, due: list[float], clock: Callable[[], float]) -> None:
        self.pair, self.due, self.clock = pair, due, clock
        self.kept: list[_Copy] = []
        self.start = 0.0
        self._keep(0.0, 0)
        self.start = clock()

    def __call__(self, steps: int) -> bool:
        """Whether the time is used up after so many steps."""
        if self._passed() < self.due[0]:
            return False
        self._wait()
        passed = self._passed()
        self._keep(passed, steps)
        self.start = self.clock() - passed
        self.due = [seconds for seconds in self.due if seconds > passed]
        return not self.due

    def close(self, steps: int) -> list[_Copy]:
        """All copies, one of the end among them."""
        if self.kept[-1].steps < steps:
            self._wait()
            self._keep(self._passed(), steps)
        return self.kept

    def _passed(self) -> float:
        return self.clock() - self.start

    def _wait(self) -> None:
        """Lets a GPU finish the steps that it was given."""
        if next(self.pair.parameters()).is_cuda:
            torch.cuda.synchronize()

    def _keep(self, seconds: float, steps: int) -> None:
        state = {name: value.detach().clone() for name, value in self.pair.state_dict().items()}
        self.kept.append(_Copy(seconds, steps, state))


def _warm(pair: Pair, data: Any, train: Callable[..., History]) -> None:
    """A step that nobody counts."""
    with torch.random.fork_rng():
        train(pair, data, steps=1, compile=False, progress=False)


def _trained(
    pair: Pair,
    route: Route,
    data: Any,
    train: Callable[..., History],
    due: list[float],
    epochs: int | None,
    clock: Callable[[], float],
) -> tuple[list[_Copy], float]:
    """Copies of a pair along its training, and the seconds that went into compiling it."""
    pair.find_parameters(*on_device_of(pair, *rows(data, 2)))
    watch = _Watch(pair, due, clock)
    history = train(
        pair,
        data,
        epochs=epochs or NO_END,
        inner_steps=route.inner_steps,
        until=watch,
        progress=False,
    )
    return watch.close(history.epochs[-1].step), history.compiling


class _Look(NamedTuple):
    """Looks at every copy of a pair by the same data and the same random numbers.

    Attributes:
        seen: training data with their positions.
        unseen: further data.
        particles: draws a datum for a guide's own bound.
        judge: finds L[q*] and log p(x).
        seed: of the random numbers.
    """

    seen: tuple[Tensor, Tensor]
    unseen: Tensor
    particles: int
    judge: Callable[..., Comparison]
    seed: int

    def __call__(self, pair: Pair, parts: Parts, kept: list[_Copy]) -> Iterator[Moment]:
        """The moments of a pair, which ends in its last state."""
        x, index = on_device_of(pair, *self.seen)
        serves = rows_of(pair.guide, list(pair.parameters()), x, index, parts.size) is None
        free = JOINT.pair(parts._replace(size=len(self.unseen)))
        for seconds, steps, state in kept:
            pair.load_state_dict(state)
            with _same_numbers(self.seed):
                train = elbo_per_datum(pair, self.seen, self.particles)
                unseen = elbo_per_datum(pair, self.unseen, self.particles) if serves else None
            yield Moment(seconds, steps, train, *self._of_model(free, parts.family), unseen)

    def _of_model(self, free: Pair, family: Family) -> tuple[Estimate, Estimate]:
        """L[q*] and log p(x), sought from the prior on, whatever guide the model had."""
        with _same_numbers(self.seed):
            compared = self.judge(free, self.unseen, families=(lambda _: family,), progress=False)
        (split,) = compared.splits.values()
        return split.bounds[type(family).__name__], split.log_evidence
