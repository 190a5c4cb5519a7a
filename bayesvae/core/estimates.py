"""Estimates of one number a datum: value, Monte-Carlo error, direction and health.

With K log-weights w_k = log p(x, z_k) - log q(z_k) of draws z_k ~ q,

    ELBO      = mean_k w_k                                 unbiased; a lower bound of log p(x);
    log p(x) ~= log mean_k exp(w_k)                        a lower bound in expectation,

the second tighter with K ("Importance Weighted Autoencoders", Burda et al., 2016).  Its standard
error follows from the effective sample size ESS = (sum_k e^{w_k})^2 / sum_k e^{2 w_k} by the delta
method: sqrt((K / ESS - 1) / (K - 1)).

Both are believable only if the weights have a variance.  Their largest follow a generalised Pareto
distribution whose shape k says how many moments they have, 1 / k: above 0.7 neither the value nor
its error can be trusted, however large K is ("Pareto Smoothed Importance Sampling", Vehtari et
al., 2024).  It is a shape and knows no size.  Weights that are even but for a few, as those of a
mixture of good proposals with a bad one, have a large k-hat and hardly an error: where it is above
0.7 and the effective sample size is near K, more draws settle it.
"""

import math
from collections.abc import Callable
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

TRUSTED = 0.7
"""The largest k-hat at which importance sampling is believed."""


class Estimate(NamedTuple):
    """One number a datum, with its Monte-Carlo error and the side that it errs on.

    Attributes:
        value: ``(B,)``, nats.
        stderr: Monte-Carlo standard error, ``(B,)``.
        bound: "lower", "upper" or "none": in expectation, not draw by draw.
        effective_sample_size: of the importance weights, ``(B,)``; None for plain means.
        k_hat: shape of the weights' tail, ``(B,)``, see `TRUSTED`; None for plain means, and where
            the draws are too few to tell. It does not depend on how large the tail is.
        given: what the estimate is conditional on, in words; empty if on nothing.
    """

    value: Tensor
    stderr: Tensor
    bound: str
    effective_sample_size: Tensor | None = None
    k_hat: Tensor | None = None
    given: str = ""

    @property
    def trusted(self) -> Tensor:
        """Where k-hat does not speak against the estimate, ``(B,)``."""
        if self.k_hat is None:
            return torch.ones_like(self.value, dtype=torch.bool)
        return self.k_hat <= TRUSTED

    def mean(self) -> tuple[float, float]:
        """The mean over data, nats per datum, and its standard error as a sample of data."""
        return mean_and_error(self.value)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of ``(B,)`` values and its standard error; NaN error for a single value.

    Example:
        >>> mean_and_error(torch.tensor([1.0, 3.0]))
        (2.0, 1.0)
    """
    values = values.double()
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(torch.nan)
    return values.mean().item(), error.item()


def require_particles(**named: int) -> None:
    """Refuses numbers of draws below one."""
    for name, number in named.items():
        if number < 1:
            raise ValueError(f"An estimate needs {name} >= 1; got {number}.")


class Weights(NamedTuple):
    """Running sums over particles of the log-weights w of each datum, all ``(B,)``.

    Attributes:
        count: K so far.
        total: sum of w.
        square: sum of w^2.
        log_sum: log sum exp(w).
        log_square: log sum exp(2 w).
        largest: the largest w, ``(T, B)``.
    """

    count: int
    total: Tensor
    square: Tensor
    log_sum: Tensor
    log_square: Tensor
    largest: Tensor

    def add(self, log_weight: Tensor) -> "Weights":
        """With further log-weights ``(K, B)``."""
        w = log_weight.double()
        return Weights(
            self.count + len(w),
            self.total + w.sum(0),
            self.square + w.square().sum(0),
            torch.logaddexp(self.log_sum, w.logsumexp(0)),
            torch.logaddexp(self.log_square, (2 * w).logsumexp(0)),
            torch.cat([self.largest, w]).topk(len(self.largest), 0).values,
        )

    def elbo(self, given: str = "") -> Estimate:
        """The mean log-weight."""
        k = self.count
        mean = self.total / k
        variance = (self.square / k - mean**2).clamp_min(0) * k / max(k - 1, 1)
        stderr = (variance / k).sqrt() if k > 1 else torch.full_like(mean, torch.nan)
        return Estimate(mean.cpu(), stderr.cpu(), "lower", given=given)

    def log_evidence(self, given: str = "") -> Estimate:
        """The log of the mean weight."""
        k = self.count
        size = (2 * self.log_sum - self.log_square).exp().clamp(max=k)
        stderr = ((k / size - 1).clamp_min(0) / max(k - 1, 1)).sqrt()
        stderr = stderr if k > 1 else torch.full_like(stderr, torch.nan)
        value = self.log_sum - torch.tensor(float(k)).log().to(self.log_sum)
        shape = k_hat(self.largest) if len(self.largest) > FEWEST else None
        shape = None if shape is None else shape.cpu()
        return Estimate(value.cpu(), stderr.cpu(), "lower", size.cpu(), shape, given)


def weights(log_weight: Callable[[int], Tensor], particles: int, at_once: int) -> Weights:
    """Sums over exactly ``particles`` draws, at most ``at_once`` at a time.

    Args:
        log_weight: fresh log-weights ``(k, B)`` for a number of draws k.
        particles: K.
        at_once: the largest k.
    """
    state, done = None, 0
    while done < particles:
        new = log_weight(min(at_once, particles - done))
        if state is None:
            zero = torch.zeros_like(new[0], dtype=torch.double)
            largest = (zero - inf).expand(tail_length(particles) + 1, -1)
            state = Weights(0, zero, zero, zero - inf, zero - inf, largest)
        state, done = state.add(new), done + len(new)
    return state


def concatenate(parts: list[Estimate]) -> Estimate:
    """Estimates of consecutive data as one."""

    def joined(name: str) -> Tensor | None:
        each = [getattr(part, name) for part in parts]
        return None if each[0] is None else torch.cat(each)

    return parts[0]._replace(
        value=joined("value"),
        stderr=joined("stderr"),
        effective_sample_size=joined("effective_sample_size"),
        k_hat=joined("k_hat"),
    )


# The tail of the weights -------------------------------------------------------------------------

FEWEST = 20
"""Fewer draws in the tail say nothing of its shape."""


def tail_length(particles: int) -> int:
    """How many of K weights count as the tail, min(K / 5, 3 sqrt(K)).

    Example:
        >>> tail_length(1000)
        95
    """
    return min(math.ceil(0.2 * particles), math.ceil(3 * math.sqrt(particles)))


def k_hat(largest: Tensor) -> Tensor:
    """Shape of the generalised Pareto distribution that the largest weights follow above the rest.

    Fitted by the posterior mean of "A New and Efficient Estimation Method for the Generalized
    Pareto Distribution" (Zhang and Stephens, 2009), drawn towards 0.5 as ten further draws would.

    Args:
        largest: log-weights ``(T + 1, B)`` in descending order; the last is the threshold.

    Returns:
        ``(B,)``; infinite where a weight is, -infinite where they differ by no more than
        rounding, less than 1e-3 nats.

    Example:
        >>> u = (torch.arange(4000.0, dtype=torch.double) + 0.5) / 4000
        >>> heavy = -0.9 * torch.log(u)[: tail_length(4000) + 1, None]  # weights u^-0.9
        >>> round(k_hat(heavy).item(), 1)
        0.9
    """
    weight = (largest - largest[:1]).exp()
    excess = (weight[:-1] - weight[-1:]).flip(0)  # ascending
    count = len(excess)
    points = 30 + math.isqrt(count)
    grid = torch.arange(1, points + 1).to(excess) - 0.5
    quartile = excess[int(count / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - (points / grid).sqrt())[:, None] / (3 * quartile)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    likelihood = count * ((-theta / shape).log() - shape - 1)
    best = (theta * likelihood.softmax(0)).sum(0)
    raw = torch.log1p(-best * excess).mean(0)
    found = (count * raw + 10 * 0.5) / (count + 10)
    return torch.where(largest[0] - largest[-1] > 1e-3, found.nan_to_num(inf), -inf)
