"""Whether ranks are uniform, and in what way they are not.

The rank r of a value is how many of L draws lie below it.  If value and draws are exchangeable, r
is uniform on 0 ... L, and of n ranks the number below each j is binomial (n, j / (L + 1)).

*Any departure.*  The empirical distribution function of the ranks leaves a band around the
diagonal.  At each j the band holds the counts whose own tail probability exceeds some gamma, and
gamma is such that the whole function stays inside with the stated chance ("Graphical Test for
Discrete Uniformity and Its Applications in Goodness-of-Fit Evaluation and Multiple Sample
Comparison", Säilynoja, Bürkner and Vehtari, 2022).  The chance is exact: uniform counts are a
Poisson process of known total, whose increments are independent ("Fast Calculation of Boundary
Crossing Probabilities for Poisson Processes", Moscovich and Nadler, 2017).

*Location and scatter.*  Where draws and values are normal, the scores y = Phi^-1((r + 1/2) / (L +
1)) are so too, with the values' mean and scatter in units of the draws'.  The mean is judged by
its own standard error, so that wrong scatter is no evidence of a shift.

*Asymmetry.*  With r - L / 2 sorted from the ends to the middle, its signs are those of coin tosses
if ranks are symmetric about L / 2, however they scatter.  The largest excess of heads or tails is
the statistic of Kolmogorov and Smirnov for r against L - r; its law is that of a simple random
walk ("A Test for Symmetry Using the Sample Distribution Function", Butler, 1969).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1e-6
"""p-values below it are bounds from above."""


class Uniform:
    """The empirical distribution function of n uniform ranks.

    Args:
        n: how many ranks.
        draws: L, so that ranks are in 0 ... L.
        points: at how many places, at most, the function is looked at.

    Attributes:
        shares: the chances of a rank below each place, ``(K,)``, rising.

    Example:
        >>> uniform = Uniform(n=500, draws=99)
        >>> low, high = uniform.band(0.95)
        >>> bool((low < 0).all() and (high > 0).all())
        True
    """

    def __init__(self, n: int, draws: int, points: int = 100) -> None:
        places = torch.linspace(0, draws + 1, points + 1, dtype=torch.double).round().unique()
        self.n, self._places = n, places[1:-1].long()
        self.shares = self._places.double() / (draws + 1)
        self._log_factorial = torch.lgamma(torch.arange(1.0, n + 2, dtype=torch.double))
        self._tails = self._tail_probabilities()

    def differences(self, ranks: Tensor) -> Tensor:
        """Empirical minus uniform distribution function of ranks ``(n, Q)``, ``(K, Q)``."""
        return self._counts(ranks).double() / self.n - self.shares[:, None]

    def band(self, chance: float = 0.95) -> tuple[Tensor, Tensor]:
        """Between which differences ``(K,)`` the whole function stays with some chance."""
        least, most = (1 - chance) / len(self.shares), 1 - chance
        for _ in range(20):
            gamma = (least + most) / 2
            if self._leaving(gamma) > 1 - chance:
                most = gamma
            else:
                least = gamma
        low, high = self._allowed(least)
        return low / self.n - self.shares, high / self.n - self.shares

    def p_values(self, ranks: Tensor) -> Tensor:
        """The chance of a function that leaves as narrow a band, of ranks ``(n, Q)``, ``(Q,)``."""
        counts = self._counts(ranks)
        smallest = self._tails.gather(1, counts).amin(0)
        return torch.tensor([self._leaving(each) for each in smallest.tolist()]).double()

    def _counts(self, ranks: Tensor) -> Tensor:
        """How many of each column are below each place, ``(K, Q)``."""
        columns = ranks.T.contiguous().sort(-1).values
        places = self._places.expand(len(columns), -1).contiguous()
        return torch.searchsorted(columns, places).T

    def _tail_probabilities(self) -> Tensor:
        """Two-sided, of every count at every place, ``(K, n + 1)``."""
        count, share = torch.arange(self.n + 1), self.shares[:, None]
        ways = self._log_factorial[-1] - self._log_factorial - self._log_factorial.flip(0)
        mass = (ways + count * share.log() + (self.n - count) * torch.log1p(-share)).exp()
        below, above = mass.cumsum(-1), mass.flip(-1).cumsum(-1).flip(-1)
        return (2 * torch.minimum(below, above)).clamp_max(1)

    def _allowed(self, gamma: float) -> tuple[Tensor, Tensor]:
        """The least and the greatest count with a tail probability above gamma, ``(K,)``."""
        inside = self._above(gamma).int()
        return inside.argmax(-1), self.n - inside.flip(-1).argmax(-1)

    def _above(self, gamma: float) -> Tensor:
        """Which tail probabilities are, beyond rounding: either side's count has the same."""
        return self._tails > gamma * (1 + 1e-9)

    def _leaving(self, gamma: float) -> float:
        """The chance that some tail probability is gamma or smaller."""
        bound = gamma * len(self.shares)
        if bound < NEGLIGIBLE:
            return bound
        if not self._above(gamma).any(-1).all():
            return 1.0
        limits = torch.stack(self._allowed(gamma), -1).tolist()
        alive, at, before = np.ones(1), 0, 0.0
        for share, (low, high) in zip(self.shares.tolist(), limits, strict=True):
            steps = self._poisson(torch.arange(high - at + 1), share - before)
            alive = np.convolve(alive, steps)[low - at : high - at + 1]
            at, before = low, share
        rest = self._poisson(self.n - torch.arange(at, at + len(alive)), 1 - before)
        staying = alive @ rest / self._poisson(torch.tensor([self.n]), 1.0).item()
        return min(max(1 - staying, 0.0), 1.0)

    def _poisson(self, counts: Tensor, share: float) -> np.ndarray:
        """Of how many of n points on average lie in a share of the line."""
        rate = self.n * share
        return (counts * math.log(rate) - rate - self._log_factorial[counts]).exp().numpy()


class Scores(NamedTuple):
    """Where values lie among draws, and how they scatter, as if all were normal; each ``(Q,)``.

    Attributes:
        location: the values' mean above the draws', in standard deviations of the draws.
        location_z: how many standard errors that is from 0.
        scatter: the values' standard deviation, in those of the draws.
        scatter_z: how far that is above 1, as a standard normal would be by chance.
    """

    location: Tensor
    location_z: Tensor
    scatter: Tensor
    scatter_z: Tensor


def scores(ranks: Tensor, draws: int) -> Scores:
    """The normal scores of ranks, summed up.

    Values beyond all draws count as little beyond, so that great numbers are underestimates.

    Args:
        ranks: ``(n, Q)``, whole numbers in 0 ... L.
        draws: L.

    Example:
        >>> found = scores(torch.arange(100)[:, None], 99)
        >>> bool(found.location.abs() < 1e-6), round(found.scatter.item(), 2)
        (True, 1.01)
    """
    n = len(ranks)
    of_rank = torch.special.ndtri(
        (torch.arange(draws + 1, dtype=torch.double) + 0.5) / (draws + 1)
    )
    y = of_rank[ranks]
    mean, variance = y.mean(0), y.var(0)
    expected, fourth = of_rank.square().mean(), of_rank.pow(4).mean()
    error = (fourth - expected**2 * (n - 3) / (n - 1)) / n  # variance of a sample's variance
    ratio = variance / expected
    return Scores(
        mean,
        _normal_from_t(mean * (n / variance).sqrt(), n - 1),
        ratio.sqrt(),
        _normal_from_variance(ratio, 2 * expected**2 / error),
    )


def _normal_from_t(t: Tensor, freedom: int) -> Tensor:
    """Quantiles of Student's t as those of a normal ("Bounds on Normal Approximations", 1959)."""
    size = (freedom * torch.log1p(t**2 / freedom)).sqrt()
    return t.sign() * size * (8 * freedom + 1) / (8 * freedom + 3)


def _normal_from_variance(ratio: Tensor, freedom: Tensor) -> Tensor:
    """Sample variances over the true one as normal ("The Distribution of Chi-Square", 1931)."""
    unit = 2 / (9 * freedom)
    return (ratio ** (1 / 3) - (1 - unit)) / unit.sqrt()


def two_sided(z: Tensor) -> Tensor:
    """The chance that a standard normal is as far from 0.

    Example:
        >>> round(two_sided(torch.tensor(1.96)).item(), 3)
        0.05
    """
    return torch.erfc(z.abs() / math.sqrt(2))


def symmetry_p_values(ranks: Tensor, draws: int) -> Tensor:
    """The chance of ranks as lopsided if they were symmetric about L / 2, ``(Q,)``.

    Args:
        ranks: ``(n, Q)`` in 0 ... L; equal distances from L / 2 are taken together, which is
            cautious.
        draws: L.

    Example:
        >>> symmetry_p_values(torch.tensor([[0], [9], [1], [8]]), 9).item()
        1.0
    """
    return torch.tensor([_symmetry(column) for column in (2 * ranks - draws).T]).double()


def _symmetry(centred: Tensor) -> float:
    centred = centred[centred != 0]
    n = len(centred)
    if not n:
        return 1.0
    distance, order = centred.abs().sort(descending=True)
    walk = centred[order].sign().cumsum(0)
    whole = torch.cat([distance[1:] != distance[:-1], torch.ones(1, dtype=torch.bool)])
    reach = int(walk[whole].abs().max())
    return _walk_reaches(reach, n) if reach else 1.0


def _walk_reaches(reach: int, steps: int) -> float:
    """The chance that a simple random walk is ever as far from 0, by reflection."""
    end = torch.arange(-steps, steps + 1, 2)
    heads = ((end + steps) // 2).double()
    ways = math.lgamma(steps + 1) - torch.lgamma(heads + 1) - torch.lgamma(steps - heads + 1)
    chance = (ways - steps * math.log(2)).exp()
    side = (end + reach) % (4 * reach)
    sign = (side > 0).double() - (side >= 2 * reach).double() - (side > 2 * reach).double()
    return min(max(1 - (sign * chance).sum().item(), 0.0), 1.0)


def holm(p_values: Tensor) -> Tensor:
    """p-values of many tests, raised so that the least of them speaks for all.

    With "A Simple Sequentially Rejective Multiple Test Procedure" (Holm, 1979) the chance of
    any false rejection is at most the level at which they are read.

    Args:
        p_values: of any shape.

    Example:
        >>> holm(torch.tensor([0.25, 0.0625, 0.5])).tolist()
        [0.5, 0.1875, 0.5]
    """
    sizes, order = p_values.flatten().sort()
    left = torch.arange(len(sizes), 0, -1)
    raised = (sizes * left).clamp_max(1).cummax(0).values
    return torch.empty_like(raised).scatter(0, order, raised).reshape(p_values.shape)
