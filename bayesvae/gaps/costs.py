"""What a way to q costs, and when a network that predicts it has paid for itself.

With T the seconds of training and c the seconds a datum of the guide, c* those of an optimisation
datum by datum, n unseen data cost T + n c by the guide and n c* without it, so that the guide is
the cheaper way from n = T / (c* - c) data on.  T is what the caller says it is: where guide and
model were trained together, the time of both is more than the guide's own, and n is then an upper
bound.  Cheaper is not as good: what the guide loses is the amortization gap.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesvae.core import trace
from bayesvae.core.dependence import guide_parameters
from bayesvae.core.memory import bytes_per_draw
from bayesvae.core.pair import Pair
from bayesvae.optima import Optimum

GUIDE = "guide"
"""The name of the guide's own way to q."""


class Price(NamedTuple):
    """What a route to q costs for a thousand data.

    Attributes:
        route: "guide", a family's name, or "semi-amortized, k steps".
        seconds: to find q, per thousand data, as it was here: compilation and, of steps from the
            guide, the guide included.
        parameters: numbers stored to serve a thousand data.
        stored: bytes of these.
        working: bytes that one datum takes while its q is found, at most: every tensor that one
            step makes counted as if none were freed (the numbers stored not counted again).
    """

    route: str
    seconds: float
    parameters: int
    stored: int = 0
    working: int = 0

    def break_even(self, other: "Price", training_seconds: float) -> int | None:
        """From how many data on this route, its training included, costs less time than another.

        Args:
            other: a route without training.
            training_seconds: T.

        Returns:
            The number; None if a datum is not cheaper by this route.

        Example:
            >>> guide, search = Price("guide", 0.5, 100), Price("Normal", 10.5, 4000)
            >>> guide.break_even(search, training_seconds=60.0)
            6000
        """
        saved = (other.seconds - self.seconds) / 1000
        return math.ceil(training_seconds / saved) if saved > 0 else None


def guide_price(pair: Pair, x: Tensor, index: Tensor | None) -> Price:
    """Of the guide's program on a batch, with the parameters that its draws depend on."""
    start, runs = time.perf_counter(), 5
    for _ in range(runs):
        trace.draws(pair.guide, x, index)
    seconds = (time.perf_counter() - start) / runs
    with torch.enable_grad():
        parameters = guide_parameters(pair.guide, list(pair.parameters()), x, index)
    return Price(
        GUIDE,
        1000 * seconds / len(x),
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
        bytes_per_draw(lambda: trace.draws(pair.guide, x, index), len(x)),
    )


def optimum_prices(
    optima: Sequence[Mapping[str, Optimum]], working: Mapping[str, int]
) -> Iterator[Price]:
    """Of each family's ascents, from where they ended batch by batch."""
    for name in dict.fromkeys(name for each in optima for name in each):
        found = [each[name] for each in optima]
        rows = found[0].rows
        count = sum(len(each.rows) for each in found)
        seconds, size = sum(each.seconds for each in found), rows.shape[-1]
        stored = 1000 * size * rows.element_size()
        yield Price(name, 1000 * seconds / count, 1000 * size, stored, working[name])


def semi_price(guide: Price, route: str, seconds: float, working: int) -> Price:
    """Of steps from the guide: they store what the guide stores, and come after it.

    Args:
        guide: the guide's.
        route: its name.
        seconds: of the steps alone, per thousand data.
        working: of a step.
    """
    return guide._replace(
        route=route, seconds=guide.seconds + seconds, working=max(guide.working, working)
    )
