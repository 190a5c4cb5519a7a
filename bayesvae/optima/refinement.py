"""Between the guide's guess and the optimum: a few gradient steps on each datum's own bound.

From the guide's own row lambda_0 in its own family,

    lambda_{j+1} = lambda_j + rate * slope / max(1, |slope|),   slope = dL(lambda_j) / dlambda_j,

which is the rule of `bayesvae.guides.SemiAmortized` ("Iterative refinement of the approximate
posterior", Hjelm et al., 2016), in coordinates where the guide has unit scale: there one rate
suits the latents of any pair.  k = 0 is the guide itself.  Slopes follow few draws, and the
optimum is where they are zero on average: more steps help the mean over data, not every datum.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bayesvae.compiler import Compiled, When
from bayesvae.core.distributions import pathwise_mean
from bayesvae.core.memory import bytes_per_draw
from bayesvae.guides import uphill
from bayesvae.optima.ascent import LogDensity, QOfRows


class Semi(NamedTuple):
    """How far, and how, the guide's guess is improved.

    Attributes:
        steps: every k at which the bound is taken.
        rate: step size, in units of the guide's standard deviation for a slope of one nat.
        particles: draws of a slope.

    Example:
        >>> Semi(steps=(1, 5)).rate
        0.1
    """

    steps: Sequence[int] = (1, 5, 20)
    rate: float = 0.1
    particles: int = 4

    def require(self) -> None:
        """Refuses what makes no sense.

        Raises:
            ValueError: if a number is out of range, or an entry of ``steps`` comes twice.
        """
        steps = list(self.steps) if isinstance(self.steps, Sequence) else []
        sound = steps and min(steps) >= 0 and len(set(steps)) == len(steps)
        if not (sound and self.particles >= 1 and self.rate > 0):
            raise ValueError(
                "Semi needs steps >= 0, each once, particles >= 1 and rate > 0; got "
                f"{self.steps}, {self.particles} and {self.rate}. Use Semi(steps=(1, 5, 20))."
            )


class Refined(NamedTuple):
    """Where k steps ended.

    Attributes:
        rows: lambda_k, ``(B, size)``.
        seconds: time of all k.
    """

    rows: Tensor
    seconds: float


class Refiner:
    """Takes the steps, batch after batch by the same compiled function.

    Args:
        log_joint: log p(x_n, u_n) of ``(u, *context)``, nats.
        q_of: q_lambda of ``(rows, *context)``.
        semi: the settings.
        modules: whose parameters ``log_joint`` reads.
        compile: "auto", True or False.
        batches: how many there will be.

    Example:
        >>> from bayesvae.families import Normal
        >>> p = torch.distributions.Normal(torch.ones(1), 0.5)
        >>> refiner = Refiner(lambda u: p.log_prob(u).sum(-1), Normal(1), Semi((0, 100)))
        >>> found = refiner(torch.zeros(4, 2))
        >>> bool((found[100].rows[:, 0] - 1).abs().max() < 0.2), found[0].rows.abs().max().item()
        (True, 0.0)
    """

    def __init__(
        self,
        log_joint: LogDensity,
        q_of: QOfRows,
        semi: Semi,
        modules: Sequence[nn.Module] = (),
        *,
        compile: When = "auto",
        batches: int = 1,
    ) -> None:
        self.log_joint, self.q_of, self.semi = log_joint, q_of, semi
        calls = batches * max(semi.steps)
        name = "The semi-amortized step"
        self._step = Compiled(self._stepped, modules, when=compile, calls=calls, name=name)

    def __call__(self, rows: Tensor, *context: Any) -> dict[int, Refined]:
        """Rows after every k that was asked for.

        Args:
            rows: the guide's own, ``(B, size)``.
            context: what ``log_joint`` and ``q_of`` take besides: tensors and plain values.
        """
        start, found = time.perf_counter(), {}
        for k in range(max(self.semi.steps) + 1):
            if k:
                (rows,) = self._step(rows, *context)
            if k in self.semi.steps:
                found[k] = Refined(rows.detach().clone(), time.perf_counter() - start)
        return {k: found[k] for k in self.semi.steps}

    def bytes_a_datum(self, rows: Tensor, *context: Any) -> int:
        """Memory that a step takes for a datum at most: all that it makes, nothing freed."""
        return bytes_per_draw(lambda: self._stepped(rows, *context), len(rows))

    def _stepped(self, rows: Tensor, *context: Any) -> list[Tensor]:
        with torch.enable_grad():
            moved = uphill(rows, lambda at: self._bound(at, *context), self.semi.rate)
        return [moved.detach()]

    def _bound(self, rows: Tensor, *context: Any) -> Tensor:
        """Sum over data of L[q], with log q scored as if its parameters were fixed."""
        q, fixed = self.q_of(rows, *context), self.q_of(rows.detach(), *context)
        terms = pathwise_mean(
            lambda u: self.log_joint(u, *context) - fixed.log_prob(u), q, self.semi.particles
        )
        return terms.sum()
