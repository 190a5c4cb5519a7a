"""Estimates of log p(x) and of the ELBO, per datum, with their error and their direction.

With K draws z_k of the guide and log-weights w_k = log p(x, z_k) - log q(z_k | x),

    ELBO      = mean_k w_k                                 unbiased; a lower bound of log p(x);
    log p(x) ~= log mean_k exp(w_k)                        a lower bound in expectation,

the second tighter with K ("Importance Weighted Autoencoders", Burda et al., 2016).  Its standard
error follows from the effective sample size ESS = (sum_k e^{w_k})^2 / sum_k e^{2 w_k} by the delta
method: sqrt((K / ESS - 1) / (K - 1)).  Where the ESS is a handful, that error is itself wrong.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from tqdm import tqdm

from bayesvae import programs, trace
from bayesvae.check import check_pair
from bayesvae.compiled import Compiled, When
from bayesvae.data import sequential
from bayesvae.dependence import refuse_positions
from bayesvae.distributions import centre_of
from bayesvae.memory import MEMORY, bytes_per_draw, chunks
from bayesvae.pair import Pair, evaluation_mode, on_device_of, require_pair


class Estimate(NamedTuple):
    """One number a datum, with its Monte-Carlo error and the side that it errs on.

    Attributes:
        value: ``(B,)``, nats.
        stderr: Monte-Carlo standard error, ``(B,)``.
        bound: "lower", "upper" or "none": in expectation, not draw by draw.
        effective_sample_size: of the importance weights, ``(B,)``; None for plain means.
        given: what the estimate is conditional on, in words; empty if on nothing.
    """

    value: Tensor
    stderr: Tensor
    bound: str
    effective_sample_size: Tensor | None = None
    given: str = ""

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


def first_batch(pair: Pair, data: Any) -> tuple[Tensor, Tensor]:
    """A few data, on the pair's device, after a look at whether the pair can be evaluated on them.

    Raises:
        ValueError: if the pair is not sound, or if its guide has rows for other data.
    """
    source = sequential(data, 16)
    x, index = on_device_of(pair, *next(iter(source)))
    check_pair(pair, (x, index), None)
    refuse_positions(pair.guide, list(pair.parameters()), x, index, source)
    return x, index


def on_device(pair: Pair, source: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the pair's device.

    Raises:
        ValueError: at the first datum that is not finite.
    """
    for x, index in source:
        if not torch.isfinite(x).all():
            bad = index[~torch.isfinite(x).flatten(1).all(1)][0].item()
            raise ValueError(
                f"Data must be finite; the datum at position {bad} is not. Remove it."
            )
        yield on_device_of(pair, x, index)


@contextmanager
def evaluating(pair: Pair) -> Iterator[None]:
    """Evaluation mode, no gradients, no validation; the modules' modes are put back afterwards."""
    with evaluation_mode(pair), torch.no_grad(), pyro.validation_enabled(False):
        yield


# Estimators ------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """Running sums over particles of the log-weights w of each datum, all ``(B,)``.

    Attributes:
        count: K so far.
        total: sum of w.
        square: sum of w^2.
        log_sum: log sum exp(w).
        log_square: log sum exp(2 w).
    """

    count: int
    total: Tensor
    square: Tensor
    log_sum: Tensor
    log_square: Tensor

    def add(self, log_weight: Tensor) -> "Weights":
        """With further log-weights ``(K, B)``."""
        w = log_weight.double()
        return Weights(
            self.count + len(w),
            self.total + w.sum(0),
            self.square + w.square().sum(0),
            torch.logaddexp(self.log_sum, w.logsumexp(0)),
            torch.logaddexp(self.log_square, (2 * w).logsumexp(0)),
        )

    def elbo(self, given: str = "") -> Estimate:
        """The mean log-weight."""
        k = self.count
        mean = self.total / k
        variance = (self.square / k - mean**2).clamp_min(0) * k / max(k - 1, 1)
        stderr = (variance / k).sqrt() if k > 1 else torch.full_like(mean, torch.nan)
        return Estimate(mean.cpu(), stderr.cpu(), "lower", None, given)

    def log_evidence(self, given: str = "") -> Estimate:
        """The log of the mean weight."""
        k = self.count
        size = (2 * self.log_sum - self.log_square).exp().clamp(max=k)
        stderr = ((k / size - 1).clamp_min(0) / max(k - 1, 1)).sqrt()
        stderr = stderr if k > 1 else torch.full_like(stderr, torch.nan)
        value = self.log_sum - torch.tensor(float(k)).log().to(self.log_sum)
        return Estimate(value.cpu(), stderr.cpu(), "lower", size.cpu(), given)


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
            state = Weights(0, zero, zero, zero - inf, zero - inf)
        state, done = state.add(new), done + len(new)
    return state


def conditioned(
    pair: Pair, x: Tensor, index: Tensor | None, draw: bool = False
) -> tuple[programs.Program, programs.Program, str]:
    """Model and guide with shared latents fixed, and the fact in words.

    Args:
        pair: the pair.
        x: a batch ``(B, *event)``.
        index: its positions.
        draw: fix them at a draw of the guide rather than at its mean.

    Raises:
        ValueError: if a local latent's guide is a point mass, for which weights mean nothing, or
            if a shared one's has no mean.
    """
    guide = pair.guide
    for site in trace.draws(guide, x, index).values():
        if isinstance(site.base, dist.Delta) and site.data_plate is not None:
            raise ValueError(
                f"The guide of '{site.name}' is a point mass, so log p(x, z) - log q(z | x) is no "
                "weight. Use a guide with a density."
            )
    values = _shared_values(guide, x, index, draw)
    if not values:
        return pair.model, guide, ""
    kind = "a draw" if draw else "the mean"
    words = f"given shared latents {sorted(values)} at {kind} of their guide"
    if not draw and _differ(values, _shared_values(guide, *_half(x, index), draw)):
        words += f", which reads the data, for the first {len(x)} of them"
    return programs.given(pair.model, values), programs.given(guide, values), words


def _half(x: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
    rows = (len(x) + 1) // 2
    return x[:rows], None if index is None else index[:rows]


def _differ(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(value, second[name]) for name, value in first.items())


def _shared_values(
    guide: programs.Program, x: Tensor, index: Tensor | None, draw: bool
) -> dict[str, Tensor]:
    """Means or draws of the guide's shared latents; point masses follow what they depend on.

    Raises:
        ValueError: if a mean is asked for where there is none.
    """
    values: dict[str, Tensor] = {}
    shared = [s for s in trace.draws(guide, x, index).values() if s.data_plate is None]
    for site in shared:
        if site.observed or isinstance(site.base, dist.Delta):
            continue
        values[site.name] = site.value if draw else _mean(site)
    settled = trace.draws(programs.given(guide, values), x, index)
    values |= {s.name: settled[s.name].value for s in shared if isinstance(s.base, dist.Delta)}
    return values


def _mean(site: trace.Site) -> Tensor:
    mean = centre_of(site.distribution)
    if mean is not None and torch.isfinite(mean).all():
        return mean
    raise ValueError(
        f"Shared latents are fixed at their guide's mean, which '{site.name}' has not "
        f"({type(site.base).__name__}). Use log_evidence(..., draw_shared=True)."
    )


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
) -> Estimate:
    require_pair(pair)
    require_particles(particles=particles)
    with evaluating(pair):
        x, index = first_batch(pair, data)
        model, guide, given = conditioned(pair, x, index, draw_shared)
        per_draw = bytes_per_draw(lambda: trace.log_terms(model, guide, x, index), len(x))
        size = chunks(memory, per_draw, particles)
        source = sequential(data, size.rows)

        def weight(x: Tensor, index: Tensor | None, k: int) -> list[Tensor]:
            return [trace.log_terms(model, guide, x, index, particles=k).local.log_weight]

        calls = len(source) * math.ceil(particles / size.particles)
        of_batch = Compiled(weight, [pair], when=compile, calls=calls, name=f"The {name}")
        parts = []
        with tqdm(total=source.size, disable=not progress, unit="datum", desc=name) as bar:
            for x, index in on_device(pair, source):

                def log_weight(k: int, batch: tuple = (x, index)) -> Tensor:
                    return of_batch(*batch, k)[0]

                at_once = max(1, min(particles, memory // (per_draw * len(x))))
                parts.append(finish(weights(log_weight, particles, at_once), given))
                bar.update(len(x))
    return concatenate(parts)


def concatenate(parts: list[Estimate]) -> Estimate:
    """Estimates of consecutive data as one."""
    sizes = [part.effective_sample_size for part in parts]
    return parts[0]._replace(
        value=torch.cat([part.value for part in parts]),
        stderr=torch.cat([part.stderr for part in parts]),
        effective_sample_size=None if sizes[0] is None else torch.cat(sizes),
    )


def log_evidence(
    pair: Pair,
    data: Any,
    particles: int = 1000,
    *,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = False,
) -> Estimate:
    """log p(x) by importance sampling from the guide: a lower bound in expectation.

    A guide narrower than the posterior makes the weights' tail heavy: then the value is low, its
    error too small, and the effective sample size a few.  Nothing of the pair is changed.

    Args:
        pair: the pair.
        data: a tensor ``(N, *event)``, a torch ``Dataset`` or a loader.
        particles: K, exactly so many for each datum.
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
        >>> from bayesvae.pairs import PPCA, ppca
        >>> model = PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0)
        >>> estimate = log_evidence(ppca(model), torch.zeros(4, 3), particles=10)
        >>> torch.allclose(estimate.value.float(), model.log_evidence(torch.zeros(4, 3)))
        True
    """
    return _estimate(
        pair,
        data,
        particles,
        draw_shared,
        memory,
        compile,
        progress,
        Weights.log_evidence,
        "log p(x)",
    )


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
