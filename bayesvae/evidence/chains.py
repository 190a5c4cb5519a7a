"""The posteriors p(z_n | x_n) of a pair, the model held fixed, by Hamiltonian Monte Carlo.

What is nearest to the truth where no closed form is: the chains know nothing of the guide but
where to start and in which units to walk.  R-hat, the effective sample size and divergences say
whether they arrived.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor
from tqdm import tqdm

from bayesvae.compiler import Compiled, When
from bayesvae.core.coordinates import Coordinates, Standardised
from bayesvae.core.estimates import require_particles
from bayesvae.core.evaluation import conditioned, evaluating, first_batch, on_device
from bayesvae.core.memory import MEMORY, bytes_per_draw
from bayesvae.core.pair import Pair, require_pair
from bayesvae.data import sequential
from bayesvae.evidence import hmc


class Chains(NamedTuple):
    """Draws of p(z_n | x_n), and what tells whether to believe them.

    Attributes:
        draws: by site, ``(S, C, N, *event)``: S draws of each of C chains.
        accept: mean acceptance probability, ``(N,)``.
        divergences: share of transitions that failed, ``(N,)``: the geometry is too sharp for the
            step size where it is not zero.
        r_hat: split R-hat, the largest over a datum's coordinates and their squared deviations,
            ``(N,)``; 1 where chains agree.
        effective_sample_size: the smallest over the same, ``(N,)``.
        step_size: ``(N,)``, in standard deviations of the guide.
        given: what the posterior is conditional on, in words; empty if on nothing but x.
        seconds: time taken.
    """

    draws: dict[str, Tensor]
    accept: Tensor
    divergences: Tensor
    r_hat: Tensor
    effective_sample_size: Tensor
    step_size: Tensor
    given: str
    seconds: float

    @property
    def trusted(self) -> Tensor:
        """Where R-hat is below 1.01 and nothing diverged, ``(N,)``.

        The threshold is that of "Rank-Normalization, Folding, and Localization" (Vehtari et al.,
        2021).
        """
        return (self.r_hat < 1.01) & (self.divergences == 0)

    def __str__(self) -> str:
        """A few lines."""
        sizes = self.effective_sample_size
        lines = [
            f"{len(self.accept)} data, acceptance {self.accept.mean():.2f}, {self.seconds:.1f} s",
            f"R-hat: median {self.r_hat.median():.3f}, largest {self.r_hat.max():.3f}",
            f"effective sample size: median {sizes.median():.0f}, smallest {sizes.min():.0f}",
            f"data with divergences: {int((self.divergences > 0).sum())}",
        ]
        return "\n".join([*lines, *([f"All of it {self.given}."] if self.given else [])])


def sample(
    pair: Pair,
    data: Any,
    *,
    chains: int = 4,
    draws: int = 250,
    warmup: int = 250,
    leapfrogs: int = 10,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Chains:
    """Runs chains for the posterior of every datum, the model held fixed.

    Chains start at draws of the guide and move in coordinates in which the guide has mean zero and
    unit scale, over the real numbers whatever the latents' supports.  Nothing of the pair is
    changed.

    Args:
        pair: the pair, with continuous local latents.
        data: a tensor ``(N, *event)``, a ``Dataset`` or a loader.
        chains: C of each datum.
        draws: S of each chain, after the warm-up.
        warmup: transitions in which step sizes and masses are found.
        leapfrogs: L of each transition.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget for what is computed at once, bytes.
        compile: "auto" to compile the gradient once that will pay, True at once, False never.
        progress: whether to show a bar.

    Returns:
        The draws and their diagnostics.

    Raises:
        ValueError: if a local latent is discrete, or the guide does not draw it.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> found = sample(pair, torch.zeros(4, 3), draws=20, warmup=20, progress=False)
        >>> found.draws["z"].shape
        torch.Size([20, 4, 4, 1])
    """
    require_pair(pair)
    require_particles(chains=chains, draws=draws - 3, warmup=warmup, leapfrogs=leapfrogs)
    start, parts = time.perf_counter(), []
    with evaluating(pair):
        x, index = first_batch(pair, data)
        model, guide, given = conditioned(pair, x, index, draw_shared)
        coordinates = Coordinates(model, guide, x, index)
        source = chunked(coordinates, x, index, data, chains, memory)
        calls = len(source) * ((warmup + draws) * leapfrogs + 1)
        target = Compiled(
            partial(_with_gradient, coordinates),
            [pair],
            when=compile,
            calls=calls,
            name="The gradient of the log joint",
        )
        total = source.size * (warmup + draws)
        with tqdm(total=total, unit="transition", disable=not progress, desc="HMC") as bar:
            for x, index in on_device(pair, source):
                run = _Run(coordinates, target, x, index, chains)
                parts.append(run(draws, warmup, leapfrogs, partial(bar.update, len(x))))
    return _joined(parts, given, time.perf_counter() - start)


def chunked(
    coordinates: Coordinates,
    x: Tensor,
    index: Tensor | None,
    data: Any,
    particles: int,
    memory: int,
) -> Any:
    """The data in order, in batches of nearly one size whose gradients fit the budget."""
    u = coordinates.draws(particles, x, index)
    per_draw = bytes_per_draw(lambda: coordinates.at(u, x, index), u[..., 0].numel())
    size = sequential(data).size
    rows = max(1, memory // (3 * per_draw * particles))  # the gradient holds about three times it
    return sequential(data, math.ceil(size / math.ceil(size / rows)))


def _with_gradient(
    coordinates: Coordinates,
    v: Tensor,
    loc: Tensor,
    scale: Tensor,
    x: Tensor,
    index: Tensor | None,
) -> list[Tensor]:
    """log p(x_n, v_n), ``(C, B)``, and its gradient."""
    with torch.enable_grad():
        leaf = v.detach().requires_grad_()
        density = coordinates.at(Standardised(loc, scale).to_u(leaf), x, index).log_joint
        (gradient,) = torch.autograd.grad(density.sum(), leaf)
    return [density.detach(), gradient]


class _Run:
    """The chains of one batch."""

    def __init__(
        self,
        coordinates: Coordinates,
        target: Compiled,
        x: Tensor,
        index: Tensor | None,
        chains: int,
        look: int = 64,
    ) -> None:
        self.coordinates, self.batch = coordinates, (x, index)
        u = coordinates.draws(max(chains, look), x, index)
        self.standardised = Standardised.by(u)
        self.start = self.standardised.to_v(u[:chains])
        self.target = target

    def density(self, v: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.target(v, *self.standardised, *self.batch)
        return value, gradient

    def __call__(self, draws: int, warmup: int, leapfrogs: int, tick: Callable[[], Any]) -> Chains:
        state = hmc.init(self.start, self.density)
        state, tuning = hmc.warm_up(state, self.density, warmup, leapfrogs, tick=tick)
        positions, accept, divergent = [], 0.0, 0.0
        for _ in range(draws):
            state, info = hmc.step(state, self.density, tuning, leapfrogs)
            positions.append(state.position)
            accept = accept + info.accept.mean(0) / draws
            divergent = divergent + info.divergent.to(accept).mean(0) / draws
            tick()
        v = torch.stack(positions, 1)  # (C, S, B, D), as Pyro's statistics take it
        u = self.standardised.to_u(v.transpose(0, 1).flatten(0, 1))
        values = self.coordinates.latents(u, *self.batch)
        # A trajectory that swings to the other side is good for means and worthless for variances.
        both = torch.cat([v, (v - v.mean((0, 1))).square()], -1)
        return Chains(
            {k: z.unflatten(0, v.shape[1::-1]).cpu() for k, z in values.items()},
            accept.cpu(),
            divergent.cpu(),
            split_gelman_rubin(both).amax(-1).cpu(),
            effective_sample_size(both).amin(-1).cpu(),
            tuning.step_size.cpu(),
            "",
            0.0,
        )


def _joined(parts: list[Chains], given: str, seconds: float) -> Chains:
    def along(name: str) -> Iterator[Tensor]:
        return (getattr(part, name) for part in parts)

    names = ("accept", "divergences", "r_hat", "effective_sample_size", "step_size")
    return Chains(
        {name: torch.cat([part.draws[name] for part in parts], 2) for name in parts[0].draws},
        *(torch.cat(list(along(name))) for name in names),
        given,
        seconds,
    )
