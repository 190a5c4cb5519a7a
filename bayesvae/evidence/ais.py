"""log p(x) by annealing: a lower bound, and on data drawn from the model an upper one.

A path of densities leads from a start f_0 that can be drawn from, the guide or the prior, to
f_1(v) = p(x, v):

    log f_b = (1 - b) log f_0 + b log f_1,      0 = b_0 < b_1 < ... < b_T = 1.

A chain v_0 ~ f_0, v_t ~ (HMC that leaves f_{b_t} as it is)(v_{t-1}) has the weight

    log w = sum_t (b_t - b_{t-1}) (log f_1 - log f_0)(v_{t-1}),      E[w] = p(x),

so that log mean_k w_k is a lower bound of log p(x) in expectation ("Annealed Importance
Sampling", Neal, 2001).  The same chain run backwards from a draw of the posterior has
E[1 / w] = 1 / p(x), and -log mean_k (1 / w_k) is an upper bound.  Such a draw comes for free where
x itself was drawn from the model: the z that made it.  Between the two log p(x) is known
("Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo", Grosse, Ghahramani and
Adams, 2015; for decoders, "On the Quantitative Analysis of Decoder-Based Generative Models", Wu et
al., 2017).

Both hold only if nothing about the path depends on the chains themselves.  So schedule and step
sizes are found by a pilot, frozen, and used on fresh noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae.compiler import Compiled, When
from bayesvae.core.coordinates import Coordinates, Standardised
from bayesvae.core.pair import Pair
from bayesvae.evidence import hmc
from bayesvae.evidence.proposals import GUIDE, Budget, Proposal, State


class Annealing(NamedTuple):
    """How a path is walked.

    Attributes:
        temperatures: T.
        leapfrogs: L of the transition at each temperature.
        chains: K of each datum.
        start: where the path begins: `proposals.GUIDE`, the short way if the guide is any good, or
            `proposals.PRIOR`, which owes nothing to it; a `proposals.optimum`, where the guide
            guesses badly; or a mixture.
        pilot: temperatures of the pilot, which is run twice; 0 keeps the sigmoid schedule of Wu
            et al. (2017) and one step size.
        target: acceptance probability that the pilot aims at.
    """

    temperatures: int = 200
    leapfrogs: int = 10
    chains: int = 8
    start: Proposal = GUIDE
    pilot: int = 50
    target: float = 0.65


def sigmoid_schedule(temperatures: int, spread: float = 4.0) -> Tensor:
    """b_0 = 0 ... b_T = 1, dense at both ends, ``(T + 1,)``.

    Example:
        >>> sigmoid_schedule(2).tolist()
        [0.0, 0.5, 1.0]
    """
    raw = torch.sigmoid(spread * torch.linspace(-1, 1, temperatures + 1, dtype=torch.double))
    return (raw - raw[0]) / (raw[-1] - raw[0])


class Path(NamedTuple):
    """A schedule and its step sizes, frozen.

    Attributes:
        inverse_temperatures: b, ``(T + 1,)``.
        step_sizes: of each datum, ``(T + 1, B)``.
    """

    inverse_temperatures: Tensor
    step_sizes: Tensor

    def resampled(self, spread: Tensor, temperatures: int) -> "Path":
        """A schedule whose steps are equally long by the standard deviation of the increments.

        The optimum for chains that mix at once ("Annealing between distributions by averaging
        moments", Grosse, Maddison and Salakhutdinov, 2013).

        Args:
            spread: standard deviation of log f_1 - log f_0 at each b, ``(T + 1,)``.
            temperatures: T of the new one.
        """
        b = self.inverse_temperatures
        lengths = (spread[1:] + spread[:-1]) / 2 * b.diff()
        covered = torch.cat([b.new_zeros(1), lengths.cumsum(0)])
        wanted = torch.linspace(0, 1, temperatures + 1).to(b) * covered[-1]
        new = _interpolated(wanted, covered, b[:, None])[:, 0]
        new[0], new[-1] = 0.0, 1.0
        return Path(new, _interpolated(new, b, self.step_sizes.log()).exp())


def _interpolated(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Values ``(T, B)`` known at ascending points ``(T,)``, linearly between them."""
    right = torch.searchsorted(known, at).clamp(1, len(known) - 1)
    left = right - 1
    width = (known[right] - known[left]).clamp_min(torch.finfo(known.dtype).tiny)
    share = ((at - known[left]) / width).clamp(0, 1)[:, None].to(values)
    return (1 - share) * values[left] + share * values[right]


class Both:
    """log f_0 and log f_1 of v and their gradients, compiled as soon as that pays.

    Args:
        coordinates: of the latents.
        start: f_0.
        pair: whose programs these are.
        compile: "auto", True or False.
        calls: how many there will be.
        batches: of how many batches.

    Attributes:
        fitted: of ``(x, index)``, what f_0 knows of a batch.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        start: Proposal,
        pair: Pair,
        compile: When,
        calls: int,
        batches: int,
    ) -> None:
        self.coordinates, self.start = coordinates, start
        start.require(coordinates)
        self.fitted = start.fit(coordinates, Budget([pair], compile, batches))
        self._compiled = Compiled(
            self._ends, [pair], when=compile, calls=calls, name="The annealed density"
        )

    def __call__(self, v: Tensor, *context: Any) -> list[Tensor]:
        """Both ends at v ``(K, B, D)``, each ``(K, B)``, then their gradients."""
        return list(self._compiled(v, *context))

    def _ends(
        self,
        v: Tensor,
        loc: Tensor,
        scale: Tensor,
        state: State,
        x: Tensor,
        index: Tensor | None,
    ) -> list[Tensor]:
        with torch.enable_grad():
            leaf = v.detach().requires_grad_()
            u = Standardised(loc, scale).to_u(leaf)
            point = self.coordinates.at(u, x, index, guide=self.start.by_guide)
            ends = [self.start.log_density(state, point), point.log_joint]
            gradients = [torch.autograd.grad(e.sum(), leaf, retain_graph=True)[0] for e in ends]
        return [*(end.detach() for end in ends), *gradients]


class Annealer:
    """The chains of one batch."""

    def __init__(
        self, both: Both, settings: Annealing, x: Tensor, index: Tensor | None, look: int = 64
    ) -> None:
        self.both, self.settings, self.batch = both, settings, (x, index)
        coordinates = both.coordinates
        self.standardised = Standardised.by(coordinates.draws(look, x, index))
        self.fitted = both.fitted(x, index)
        first = self.standardised.to_v(self._drawn(look))
        self.start_precision = first.var(0).clamp_min(1e-6).reciprocal()

    def start(self) -> hmc.State:
        """Fresh draws of f_0."""
        return self.at(self._drawn(self.settings.chains))

    def _drawn(self, k: int) -> Tensor:
        draw = self.settings.start.draw
        return draw(self.both.coordinates, self.fitted, k, *self.batch)

    def at(self, u: Tensor) -> hmc.State:
        """The chains at positions u ``(K, B, D)``."""
        return hmc.init(self.standardised.to_v(u), self.density(0.0))

    def density(self, b: float) -> hmc.Density:
        """log f_b, its gradient, and both ends with theirs."""

        def tempered(v: Tensor) -> list[Tensor]:
            ends = self.both(v, *self.standardised, self.fitted, *self.batch)
            return [*_mixed(b, *ends), *ends]

        return tempered

    def moved(self, state: hmc.State, b: float, step_size: Tensor) -> tuple[hmc.State, hmc.Info]:
        """After a transition that leaves f_b as it is."""
        state = state._replace(
            **dict(zip(("log_density", "gradient"), _mixed(b, *state.kept), strict=True))
        )
        # Precisions add up along the path as they do between normals.
        precision = (1 - b) * self.start_precision + b
        tuning = hmc.Tuning(step_size, precision.reciprocal())
        return hmc.step(state, self.density(b), tuning, self.settings.leapfrogs)

    def pilot(self, tick: Callable[[], Any]) -> Path:
        """A path fit for this batch, from chains of its own."""
        settings = self.settings
        b = sigmoid_schedule(settings.pilot or settings.temperatures).to(self.standardised.loc)
        sizes = torch.full((len(b), len(self.standardised.loc)), 0.2).to(b)
        path = Path(b, sizes)
        for rate in (1.0, 0.5) if settings.pilot else ():
            path, spread = self._piloted(path, rate, tick)
        return path.resampled(spread, settings.temperatures) if settings.pilot else path

    def _piloted(self, path: Path, rate: float, tick: Callable[[], Any]) -> tuple[Path, Tensor]:
        """One pass along the path with step sizes that follow the acceptance."""
        state, sizes, spreads = self.start(), path.step_sizes.clone(), []
        correction = torch.zeros_like(sizes[0])
        for t, b in enumerate(path.inverse_temperatures.tolist()):
            size = sizes[t] * correction.exp()
            state, info = self.moved(state, b, size)
            correction = correction + rate * (info.accept.mean(0) - self.settings.target)
            sizes[t] = sizes[t] * correction.exp()
            spreads.append(_difference(state).std(0).nan_to_num().mean())
            tick()
        return Path(path.inverse_temperatures, sizes), torch.stack(spreads)

    def forward(self, path: Path, tick: Callable[[], Any]) -> tuple[Tensor, Tensor]:
        """log-weights ``(K, B)`` of fresh chains, and where they end, ``(K, B, D)``."""
        state, b = self.start(), path.inverse_temperatures.tolist()
        log_weight = torch.zeros_like(state.log_density, dtype=torch.double)
        for t in range(1, len(b)):
            log_weight = log_weight + (b[t] - b[t - 1]) * _difference(state)
            if t < len(b) - 1:
                state, _ = self.moved(state, b[t], path.step_sizes[t])
            tick()
        return log_weight, self.standardised.to_u(state.position)

    def settled(self, path: Path, u: Tensor, transitions: int, tick: Callable[[], Any]) -> Tensor:
        """u ``(K, B, D)`` after further transitions that leave the posterior as it is."""
        state = self.at(u)
        for _ in range(transitions):
            state, _ = self.moved(state, 1.0, path.step_sizes[-1])
            tick()
        return self.standardised.to_u(state.position)

    def reverse(self, path: Path, u: Tensor, tick: Callable[[], Any]) -> Tensor:
        """log-weights ``(K, B)`` of chains run backwards from u ``(K, B, D)``."""
        state, b = self.at(u), path.inverse_temperatures.tolist()
        log_weight = torch.zeros_like(state.log_density, dtype=torch.double)
        for t in range(len(b) - 1, 0, -1):
            log_weight = log_weight + (b[t] - b[t - 1]) * _difference(state)
            if t > 1:
                state, _ = self.moved(state, b[t - 1], path.step_sizes[t - 1])
            tick()
        return log_weight


def _mixed(
    b: float, first: Tensor, last: Tensor, first_gradient: Tensor, last_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    return (1 - b) * first + b * last, (1 - b) * first_gradient + b * last_gradient


def _difference(state: hmc.State) -> Tensor:
    first, last = state.kept[:2]
    return last.double() - first.double()
