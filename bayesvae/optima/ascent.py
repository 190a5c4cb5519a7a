"""The best member of a family for each datum by itself: q* = argmax L[q_lambda].

Adam climbs all rows lambda of a batch at once, with steps that decay in stages; a stage ends when
a window of steps gains nothing that matters, looked at on the same noise.  Latents are expected in
coordinates where the posterior has about unit scale, so that one step size suits them all.
Gradients leave out the score of q, which is zero on average and vanishes where q is exact
("Sticking the Landing", Roeder, Wu and Duvenaud, 2017).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Adam

from bayesvae.compiler import Compiled, Step, When
from bayesvae.core.distributions import pathwise_mean
from bayesvae.core.memory import bytes_per_draw


class Ascent(NamedTuple):
    """How the per-datapoint optimum is sought.

    Attributes:
        particles: draws a datum in a gradient.
        rate: first step size of Adam, in units of the guide's standard deviation.
        decay: factor between stages.
        stages: how many step sizes are run through.
        window: steps between two looks at the bound, on the same noise.
        tolerance: a window that gains less over the best look before it is lost, nats per datum.
        windows: at most so many a stage.
        patience: a stage ends after so many windows lost in a row; more where a family
            asks for them.
    """

    particles: int = 8
    rate: float = 0.05
    decay: float = 0.3
    stages: int = 3
    window: int = 50
    tolerance: float = 5e-3
    windows: int = 20
    patience: int = 1

    def require(self) -> None:
        """Refuses what makes no sense.

        Raises:
            ValueError: if a number is out of range.
        """
        counts = (self.particles, self.stages, self.window, self.windows, self.patience)
        if min(counts) < 1 or min(self.rate, self.decay) < 0:
            raise ValueError(
                "Ascent needs counts >= 1, and no negative rate or decay; got "
                f"{self}. Use Ascent(particles=8)."
            )

    def patient_with(self, family: Any) -> "Ascent":
        """With as much patience as a family asks for.

        Example:
            >>> from bayesvae.families import Normal
            >>> Ascent(patience=2).patient_with(Normal(3)).patience
            2
        """
        asked = getattr(family, "patience", 1)
        return self._replace(patience=max(self.patience, asked))


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


LogDensity = Callable[..., Tensor]
"""log p(x_n, u_n) of ``u (K, B, d)`` and what else tells one batch from another: ``(K, B)``."""
QOfRows = Callable[..., Distribution]
"""q_lambda of rows ``(B, size)`` and the same."""


class Ascender:
    """Climbs L[q_lambda] for each row by itself, batch after batch by the same compiled steps.

    Args:
        log_joint: log p(x_n, u_n) of ``(u, *context)``, nats.
        q_of: q_lambda of ``(rows, *context)``.
        ascent: the settings.
        modules: whose parameters ``log_joint`` reads.
        look: draws a datum when the bound is looked at.
        compile: "auto", True or False.
        batches: how many there will be, if that is known.

    Example:
        >>> from bayesvae.families import Normal
        >>> p = torch.distributions.Normal(torch.ones(1), 0.5)
        >>> ascender = Ascender(lambda u: p.log_prob(u).sum(-1), Normal(1), Ascent())
        >>> found = ascender(torch.zeros(4, 2)).rows
        >>> bool((found[:, 0] - 1).abs().max() < 0.1)
        True
    """

    def __init__(
        self,
        log_joint: LogDensity,
        q_of: QOfRows,
        ascent: Ascent,
        modules: Sequence[nn.Module] = (),
        *,
        look: int = LOOK,
        compile: When = "auto",
        batches: int | None = None,
    ) -> None:
        self.log_joint, self.q_of, self.ascent, self.look = log_joint, q_of, ascent, look
        self.modules, self.compile, self.batches = modules, compile, batches
        self._rows: dict[torch.Size, tuple[nn.Parameter, Adam, Step]] = {}
        self._value = Compiled(
            self._bound, modules, when=compile, calls=self._planned(1), name="The ascent's look"
        )

    def __call__(self, rows: Tensor, *context: Any) -> Optimum:
        """The optimum of a batch.

        Args:
            rows: where to start, ``(B, size)``.
            context: what ``log_joint`` and ``q_of`` take besides: tensors and plain values.
        """
        start, seed = time.perf_counter(), int(torch.randint(2**31, ()))
        moving, optimizer, step = self._steps(rows)

        def value() -> Tensor:
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(seed)
                return self._value(moving.detach(), *context)[0]

        before, movement = value(), torch.tensor(torch.inf)
        for stage in range(self.ascent.stages):
            _begin(optimizer, self.ascent.rate * self.ascent.decay**stage)
            best, lost = before, 0
            for _ in range(self.ascent.windows):
                for _ in range(self.ascent.window):
                    step(*context)
                after = value()
                lost = lost + 1 if after - best < self.ascent.tolerance else 0
                movement, before, best = after - before, after, torch.maximum(best, after)
                if lost >= self.ascent.patience:
                    break
        seconds = time.perf_counter() - start
        return Optimum(moving.detach().clone(), movement.item(), seconds)

    def better_start(self, rows: Tensor, *context: Any) -> Tensor:
        """For each datum the row with the highest bound, among candidates ``(S, B, size)``."""
        with torch.no_grad():
            candidates = [self.q_of(each, *context) for each in rows]
            values = torch.stack([self._bounds(q, q, context, LOOK) for q in candidates])
        best = values.argmax(0)
        return rows.gather(0, best[None, :, None].expand(1, *rows.shape[1:]))[0]

    def _planned(self, window: int) -> int | None:
        """About how many steps or looks all batches will take; three windows a stage are usual."""
        return None if self.batches is None else 3 * self.batches * self.ascent.stages * window

    def _bounds(
        self, q: Distribution, scored: Distribution, context: tuple, particles: int
    ) -> Tensor:
        """Estimates of L[q] for each datum, ``(B,)``, with log q taken from ``scored``."""
        return pathwise_mean(
            lambda u: self.log_joint(u, *context) - scored.log_prob(u), q, particles
        )

    def _bound(self, rows: Tensor, *context: Any) -> list[Tensor]:
        q = self.q_of(rows, *context)
        return [self._bounds(q, q, context, self.look).mean()]

    def bytes_a_datum(self, rows: Tensor, *context: Any) -> int:
        """Memory that a step takes for a datum at most: all that it makes, nothing freed.

        With Adam's two moments.
        """
        moving = rows.detach().requires_grad_()

        def slope() -> None:
            with torch.enable_grad():
                torch.autograd.grad(self._loss(moving, *context), moving)

        return bytes_per_draw(slope, len(rows)) + 2 * rows[0].numel() * rows.element_size()

    def _loss(self, moving: Tensor, *context: Any) -> Tensor:
        q, fixed = self.q_of(moving, *context), self.q_of(moving.detach(), *context)
        return -self._bounds(q, fixed, context, self.ascent.particles).sum()

    def _steps(self, rows: Tensor) -> tuple[nn.Parameter, Adam, Step]:
        """The rows that move, their optimiser and its step: the same for batches of one size."""
        if rows.shape not in self._rows:
            moving = nn.Parameter(rows.detach().clone())

            optimizer = Adam([moving])
            step = Step(
                partial(self._loss, moving),
                [moving],
                [optimizer],
                self.modules,
                when=self.compile,
                calls=self._planned(self.ascent.window),
                name="The ascent's step",
            )
            self._rows[rows.shape] = moving, optimizer, step
        found = self._rows[rows.shape]
        with torch.no_grad():
            found[0].copy_(rows)
        return found


def _begin(optimizer: Adam, rate: float) -> None:
    """Starts an optimiser anew, with another step size, in the tensors that it has."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()
