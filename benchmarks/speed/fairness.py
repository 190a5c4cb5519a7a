"""Whether contestants of one case did the same work: the bound that their weights reach.

After equally many steps from the same weights on the same batches, contestants differ by their
random draws alone.  How far that carries apart is measured: the hand-written contestant is trained
several times with other draws.  All weights are judged by one evaluator, on one set of draws.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.speed import handwritten, in_torch
from benchmarks.speed.cases import Arrays, Case

DEVIATIONS = 5.0
FLOOR = 0.005
"""Share of the bound by which contestants may differ in any case."""


class Verdict(NamedTuple):
    """One contestant's standing, in nats per datum.

    Attributes:
        elbo: what it reached.
        expected: what the hand-written one reached on average.
        allowed: how far apart they may be.
    """

    elbo: float
    expected: float
    allowed: float

    @property
    def fair(self) -> bool:
        """Whether it ended where the others ended."""
        return abs(self.elbo - self.expected) <= self.allowed


def reference(
    case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray, steps: int, runs: int
) -> list[float]:
    """The bounds that the hand-written contestant reaches, one a run, with other draws in each."""
    reached = []
    for seed in range(runs):
        torch.manual_seed(seed)
        trained = in_torch.make(case, weights, x, index)
        trained.run(steps)
        reached.append(elbo(case, trained.weights(), x, index))
    return reached


def elbo(case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray) -> float:
    """The bound of weights on the batches that were trained on, nats per datum."""
    positions = torch.from_numpy(index) if case.table else None
    return handwritten.evaluate(weights, torch.from_numpy(x), positions, case)


def judged(reached: Mapping[str, float], expected: Sequence[float]) -> dict[str, Verdict]:
    """A verdict on each contestant.

    Args:
        reached: the bound by contestant.
        expected: the bounds of the hand-written one, at least two.

    Example:
        >>> judged({"a": -100.3, "b": -90.0}, [-100.0, -100.2, -99.8])["b"].fair
        False
    """
    mean, deviation = statistics.fmean(expected), statistics.stdev(expected)
    # The mean itself is uncertain, too.
    noise = DEVIATIONS * deviation * math.sqrt(1 + 1 / len(expected))
    allowed = max(noise, FLOOR * abs(mean))
    return {name: Verdict(value, mean, allowed) for name, value in reached.items()}
