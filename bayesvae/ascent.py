"""The best member of a family for each datum by itself: q* = argmax L[q_lambda].

Adam climbs all rows lambda of a batch at once, with steps that decay in stages; a stage ends when
a window of steps gains nothing that matters, looked at on the same noise.  Latents are expected in
coordinates where the posterior has about unit scale, so that one step size suits them all.
Gradients leave out the score of q, which is zero on average and vanishes where q is exact
("Sticking the Landing", Roeder, Wu and Duvenaud, 2017).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution


class Ascent(NamedTuple):
    """How the per-datapoint optimum is sought.

    Attributes:
        particles: draws a datum in a gradient.
        rate: first step size of Adam, in units of the guide's standard deviation.
        decay: factor between stages.
        stages: how many step sizes are run through.
        window: steps between two looks at the bound, on the same noise.
        tolerance: a stage ends when a window gains less, nats per datum.
        windows: at most so many a stage.
    """

    particles: int = 8
    rate: float = 0.05
    decay: float = 0.3
    stages: int = 3
    window: int = 50
    tolerance: float = 5e-3
    windows: int = 20


DEFAULT_ASCENT = Ascent()
LOOK = 32
"""Draws a datum when a bound is looked at."""


class Optimum(NamedTuple):
    """Where an ascent ended.

    Attributes:
        rows: lambda*, ``(B, family.size)``, in u.
        movement: gain of the bound over the last window, mean over data, nats.
        seconds: time taken.
    """

    rows: Tensor
    movement: float
    seconds: float


LogDensity = Callable[[Tensor], Tensor]
QOfRows = Callable[[Tensor], Distribution]


def draw_log_weight(
    log_joint: LogDensity, q: Distribution, scored: Distribution, particles: int
) -> Tensor:
    """Log-weights ``(K, B)`` of reparameterised draws of q, scored under ``scored``."""
    u = q.rsample((particles,))
    return log_joint(u) - scored.log_prob(u)


def ascend(
    log_joint: LogDensity, q_of: QOfRows, rows: Tensor, ascent: Ascent, look: int = LOOK
) -> Optimum:
    """Climbs L[q_lambda] for each row by itself.

    Args:
        log_joint: log p(x_n, u_n), ``(K, B, d)`` to ``(K, B)``, nats.
        q_of: q_lambda of rows ``(B, size)``.
        rows: where to start, ``(B, size)``.
        ascent: the settings.
        look: draws a datum when the bound is looked at.

    Returns:
        The optimum.
    """
    start, seed = time.perf_counter(), int(torch.randint(2**31, ()))
    rows = rows.detach().clone().requires_grad_(True)

    def value() -> Tensor:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            q = q_of(rows)
            return draw_log_weight(log_joint, q, q, look).mean()

    before, movement = value(), torch.tensor(torch.inf)
    for stage in range(ascent.stages):
        optimizer = torch.optim.Adam([rows], lr=ascent.rate * ascent.decay**stage)
        for _ in range(ascent.windows):
            for _ in range(ascent.window):
                terms = draw_log_weight(
                    log_joint, q_of(rows), q_of(rows.detach()), ascent.particles
                )
                (rows.grad,) = torch.autograd.grad(-terms.mean(0).sum(), rows)
                optimizer.step()
            after = value()
            movement, before = after - before, after
            if movement < ascent.tolerance:
                break
    return Optimum(rows.detach(), movement.item(), time.perf_counter() - start)


def better_start(log_joint: LogDensity, q_of: QOfRows, rows: Tensor) -> Tensor:
    """For each datum the row with the highest bound, among candidates ``(S, B, size)``."""
    with torch.no_grad():
        qs = [q_of(each) for each in rows]
        values = torch.stack([draw_log_weight(log_joint, q, q, LOOK).mean(0) for q in qs])
    best = values.argmax(0)
    return rows.gather(0, best[None, :, None].expand(1, *rows.shape[1:]))[0]
