"""Hamiltonian Monte Carlo for the posteriors of many data at once.

For a density pi(v) on R^D and a momentum p ~ N(0, M), the flow of

    H(v, p) = -log pi(v) + p' M^-1 p / 2

keeps pi(v) N(p; 0, M).  L leapfrog steps of size e follow it up to an error in H, which the
acceptance probability min(1, exp(-dH)) corrects for exactly ("MCMC Using Hamiltonian Dynamics",
Neal, 2011).  C chains of B data move together as ``(C, B, D)``; each datum has its own e and
diagonal M, found in a warm-up by dual averaging ("The No-U-Turn Sampler", Hoffman and Gelman,
2014) and from the draws' variances, then frozen: only from there on are the chains Markov.

``init`` and ``step`` are functions of an explicit state, for any density.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Density = Callable[[Tensor], Sequence[Tensor]]
"""log pi of ``v (C, B, D)``, ``(C, B)``; its gradient ``(C, B, D)``; and what else to remember."""
DIVERGENT = 1000.0
"""A rise of H above this, nats, and the integrator has lost the flow (Stan's threshold)."""


class State(NamedTuple):
    """Where the chains are.

    Attributes:
        position: v, ``(C, B, D)``.
        log_density: log pi(v), ``(C, B)``.
        gradient: of log pi at v, ``(C, B, D)``.
        kept: what else the density gave for v, each ``(C, B, *)``.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor
    kept: tuple[Tensor, ...] = ()


class Info(NamedTuple):
    """What a step did.

    Attributes:
        accept: the acceptance probability, ``(C, B)``.
        divergent: where the integrator failed, ``(C, B)``.
    """

    accept: Tensor
    divergent: Tensor


class Tuning(NamedTuple):
    """What a warm-up finds and then freezes.

    Attributes:
        step_size: e of each datum, ``(B,)``.
        inverse_mass: the diagonal of M^-1, ``(B, D)``.
    """

    step_size: Tensor
    inverse_mass: Tensor


def init(position: Tensor, density: Density) -> State:
    """The chains at ``position`` ``(C, B, D)``."""
    value, gradient, *kept = density(position)
    return State(position, value, gradient, tuple(kept))


def step(
    state: State, density: Density, tuning: Tuning, leapfrogs: int, jitter: float = 0.2
) -> tuple[State, Info]:
    """One transition of every chain; it leaves pi as it is.

    Args:
        state: where they are.
        density: log pi and its gradient.
        tuning: step sizes and masses.
        leapfrogs: L.
        jitter: each chain's step size is drawn from e (1 -+ jitter), so that no trajectory closes
            on itself.

    Example:
        >>> normal = lambda v: (-v.square().sum(-1) / 2, -v)
        >>> state = init(torch.zeros(2, 3, 1), normal)
        >>> state, info = step(state, normal, Tuning(torch.ones(3), torch.ones(3, 1)), 5)
        >>> state.position.shape, info.accept.shape
        (torch.Size([2, 3, 1]), torch.Size([2, 3]))
    """
    noise = torch.rand_like(state.log_density)
    size = (tuning.step_size * (1 + jitter * (2 * noise - 1))).unsqueeze(-1)
    momentum = torch.randn_like(state.position) * tuning.inverse_mass.rsqrt()

    def energy(log_density: Tensor, momentum: Tensor) -> Tensor:
        return (tuning.inverse_mass * momentum.square()).sum(-1) / 2 - log_density

    before = energy(state.log_density, momentum)
    moved = state
    for _ in range(leapfrogs):
        momentum = momentum + size / 2 * moved.gradient
        moved = init(moved.position + size * tuning.inverse_mass * momentum, density)
        momentum = momentum + size / 2 * moved.gradient
    fall = before - energy(moved.log_density, momentum)
    fall = torch.where(fall.isnan(), -math.inf, fall)
    accept = fall.clamp_max(0.0).exp()
    taken = torch.rand_like(accept) < accept

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(taken.reshape(taken.shape + (1,) * (new.dim() - 2)), new, old)

    kept = tuple(map(chosen, moved.kept, state.kept))
    state = State(*map(chosen, moved[:3], state[:3]), kept)
    return state, Info(accept, fall < -DIVERGENT)


# Warm-up -----------------------------------------------------------------------------------------


class DualAveraging(NamedTuple):
    """A search for the step size at which a given share of proposals is accepted.

    Attributes:
        log_step: the next one to try, ``(B,)``.
        log_average: the one to keep, ``(B,)``.
        error: running mean of (target - acceptance), ``(B,)``.
        centre: what the search is drawn to, ``(B,)``.
        count: updates so far.
    """

    log_step: Tensor
    log_average: Tensor
    error: Tensor
    centre: Tensor
    count: int = 0

    @classmethod
    def begin(cls, step_size: Tensor) -> "DualAveraging":
        """From a first guess ``(B,)``."""
        log_step, zero = step_size.log(), torch.zeros_like(step_size)
        return cls(log_step, log_step, zero, log_step + math.log(10.0))

    def update(self, accept: Tensor, target: float = 0.8) -> "DualAveraging":
        """After acceptance probabilities ``(C, B)``; constants of Hoffman and Gelman (2014)."""
        count = self.count + 1
        share = 1 / (count + 10)
        error = (1 - share) * self.error + share * (target - accept.mean(0))
        log_step = self.centre - count**0.5 / 0.05 * error
        forget = count**-0.75
        log_average = forget * log_step + (1 - forget) * self.log_average
        return DualAveraging(log_step, log_average, error, self.centre, count)


def windows(steps: int) -> tuple[int, ...]:
    """Lengths of the warm-up's parts: step size alone, masses in doubling windows, step size.

    Example:
        >>> windows(300)
        (45, 30, 60, 120, 45)
    """
    edge = math.ceil(0.15 * steps)
    middle = max(0, steps - 2 * edge)
    parts, length = [], max(1, middle // 7)
    while middle >= 3 * length:
        parts.append(length)
        middle, length = middle - length, 2 * length
    return (edge, *parts, *([middle] if middle else []), edge)


def warm_up(
    state: State,
    density: Density,
    steps: int,
    leapfrogs: int,
    target: float = 0.8,
    tick: Callable[[], Any] = lambda: None,
) -> tuple[State, Tuning]:
    """Brings chains to where the mass is, and finds step sizes and masses.

    Args:
        state: where they start.
        density: log pi and its gradient.
        steps: how many transitions to spend.
        leapfrogs: L.
        target: the acceptance probability to aim at.
        tick: called after each transition.
    """
    inverse_mass = torch.ones_like(state.position[0])
    search = DualAveraging.begin(torch.full_like(state.log_density[0], 0.1))
    lengths = windows(steps)
    for number, length in enumerate(lengths):
        count, total, square = 0, torch.zeros_like(inverse_mass), torch.zeros_like(inverse_mass)
        for _ in range(length):
            tuning = Tuning(search.log_step.exp(), inverse_mass)
            state, info = step(state, density, tuning, leapfrogs)
            search = search.update(info.accept, target)
            count += len(state.position)
            total = total + state.position.sum(0)
            square = square + state.position.square().sum(0)
            tick()
        if 0 < number < len(lengths) - 1:
            variance = (square / count - (total / count).square()).clamp_min(0)
            # As Stan has it: a little shrinkage towards a small variance.
            inverse_mass = (count * variance + 5e-3) / (count + 5)
            search = DualAveraging.begin(search.log_average.exp())
    return state, Tuning(search.log_average.exp(), inverse_mass)
