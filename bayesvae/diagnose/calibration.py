"""Is the posterior right? A guide against latents that are known, on data drawn from the model.

Draw z from the model's prior and x from p(x | z).  Then z is an exact draw of p(z | x), so if q(z
| x) is the posterior, the rank of z's entries among L draws of q is uniform on 0 ... L, and a set
that q gives 90 % holds z for 90 % of such data ("Validating Bayesian Inference Algorithms with
Simulation-Based Calibration", Talts et al., 2018).  How ranks depart says how q is wrong: they
gather at both ends if it is too narrow, in the middle if too wide, at one end if it is shifted.

Entries alone cannot tell: even the prior, which ignores x, gives them uniform ranks.  So log p(x,
z) and log q(z | x) are ranked as well, which depend on the data and on all entries together
("Simulation-Based Calibration Checking for Bayesian Computation", Modrák et al., 2023).  The rank
of log q also tells whether the sets of highest q hold z.

A variational q is rarely the posterior, and may still have the right centre.  Then Q(z_d), the
probability that q gives to less than the truth, is symmetric about 1/2, however wide q is ("Yes,
but Did It Work?: Evaluating Variational Inference", Yao et al., 2018).

All of it is said of q on average over the model's own data, and nothing of data unlike them.
Ranks of an entry do not change under a monotone transform, so they are taken in the coordinates u
of `bayesvae.core.coordinates`; densities are those of u.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from tqdm import tqdm

from bayesvae import plots
from bayesvae.compiler import Compiled, When
from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.dependence import rows_of
from bayesvae.core.distributions import bare, support_of
from bayesvae.core.estimates import TRUSTED, weights
from bayesvae.core.evaluation import conditioned, evaluating, first_batch, on_device
from bayesvae.core.files import write_aside
from bayesvae.core.memory import MEMORY, bytes_per_draw, chunks
from bayesvae.core.pair import Pair, require_pair
from bayesvae.data import sequential
from bayesvae.diagnose.findings import (
    COLUMNS,
    DENSITIES,
    ERROR,
    Finding,
    findings,
    probability,
    worst,
)
from bayesvae.diagnose.uniformity import Uniform
from bayesvae.generate import blank, joint_draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""The credible sets whose coverage is printed."""
SETS = "sets of q"
"""The name of the sets of highest q(z | x), in all latents together."""
_SHOWN, _COLOURED = 20, 4


class Calibration(NamedTuple):
    """A guide against the known latents of n simulated data.

    ``print(calibration)`` shows tables, ``calibration.figure()`` the picture.

    Attributes:
        ranks: of the truth among the draws, ``(n, D + 2)`` in 0 ... L: of the entries of u, of log
            p(x, z) and of log q(z | x).
        draws: L.
        findings: of each column of the ranks.
        k_hat: of the weights p(x, z) / q(z | x) of each datum's draws, ``(n,)``; see
            `bayesvae.core.estimates`.
        given: what all is conditional on, in words; empty if on nothing.
        seconds: time taken.
    """

    ranks: Tensor
    draws: int
    findings: tuple[Finding, ...]
    k_hat: Tensor
    given: str
    seconds: float

    @property
    def p_value(self) -> float:
        """Of all tests together: at most this is the chance of as much by noise alone."""
        return min(found.p_value for found in self.findings)

    @property
    def latents(self) -> tuple[Finding, ...]:
        """The findings of single entries of u, D of them."""
        return self.findings[: -len(DENSITIES)]

    def coverage(self, levels: Sequence[float] = LEVELS) -> dict[str, Tensor]:
        """The share of truths inside the guide's credible sets; their levels if it is right.

        Args:
            levels: M levels between 0 and 1.

        Returns:
            ``(M,)`` by name: of each latent's central intervals, and of the sets of highest q(z |
            x) under `SETS`. For a guide that is right, standard errors are
            sqrt(level (1 - level) / n).
        """
        level = torch.tensor(levels, dtype=torch.double)[:, None]
        central = ((1 - level) / 2, (1 + level) / 2)
        each = zip(self.latents, self.ranks.T, strict=False)
        found = {latent.name: self._between(*central, ranks) for latent, ranks in each}
        return found | {SETS: self._between(1 - level, torch.ones_like(level), self.ranks[:, -1])}

    def _between(self, low: Tensor, high: Tensor, ranks: Tensor) -> Tensor:
        """The share ``(M,)`` of ranks between two shares of all ranks; of one cut by them, a part.

        So its mean is high - low for uniform ranks, whatever L is.
        """
        cell = 1 / (self.draws + 1)
        left = cell * ranks
        inside = torch.minimum(high, left + cell) - torch.maximum(low, left)
        return (inside / cell).clamp(0, 1).mean(-1)

    def figure(self) -> Figure:
        """Ranks, coverage, Q(truth) and k-hat, with the worst latents in colour."""
        uniform = Uniform(len(self.ranks), self.draws)
        names = [found.name for found in self.findings]
        differences = dict(zip(names, uniform.differences(self.ranks).T, strict=True))
        densities = {name: differences.pop(name) for name in DENSITIES}
        levels = torch.linspace(0.01, 0.99, 99)
        coverage = self.coverage(levels.tolist())
        coloured = [found.name for found in worst(self.latents, _COLOURED)]
        return plots.calibration_figure(
            plots.RankCurves(
                uniform.shares,
                *uniform.band(1 - ERROR),
                differences,
                densities,
                levels,
                {name: coverage[name] for name in coloured},
                coverage[SETS],
                {name: self.ranks[:, names.index(name)] for name in coloured},
                self.draws,
                self.k_hat,
                {found.name: found.verdict for found in self.findings},
            )
        )

    def to_csv(self, path: Path | str) -> None:
        """Writes one line a datum: ``position, k_hat`` and the rank of each quantity.

        Args:
            path: the file, written aside and renamed.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        names = [*(latent.name for latent in self.latents), "log_joint", "log_guide"]
        writer.writerow(["position", "k_hat", *(f"rank_{name}" for name in names)])
        each = zip(self.k_hat.tolist(), self.ranks.tolist(), strict=True)
        for position, (k_hat, ranks) in enumerate(each):
            writer.writerow([position, f"{k_hat:.6g}", *ranks])
        write_aside(path, lambda aside: aside.write_text(text.getvalue()))

    def __str__(self) -> str:
        """The tables."""
        above = 100 * (self.k_hat > TRUSTED).double().mean()
        blocks = [
            f"{len(self.ranks)} data drawn from the model, {self.draws} draws of the guide each, "
            f"{self.seconds:.1f} s",
            *([f"All of it {self.given}."] if self.given else []),
            self._findings(),
            self._coverage(),
            f"k-hat above {TRUSTED}: {above:.1f} % of the data",
        ]
        return "\n\n".join(blocks)

    def _findings(self) -> str:
        shown = [*worst(self.latents, _SHOWN), *self.findings[-len(DENSITIES) :]]
        rows = [(found.name, found.cells(), found.verdict) for found in shown]
        hidden = len(self.findings) - len(shown)
        more = [f"latents with larger p-values, not shown: {hidden}"] if hidden else []
        whole = f"all tests together: p = {probability(self.p_value)}".replace("= <", "<")
        return "\n".join([*_lines("quantity", COLUMNS, "verdict", rows), *more, whole])

    def _coverage(self) -> str:
        found = self.coverage()
        chance = [math.sqrt(level * (1 - level) / len(self.ranks)) for level in LEVELS]
        shown = [*(latent.name for latent in worst(self.latents, _SHOWN)), SETS]
        shares = [(name, found[name].tolist()) for name in shown] + [("+- by chance", chance)]
        rows = [(name, [f"{100 * share:.1f}" for share in each], "") for name, each in shares]
        columns = [f"{100 * level:.0f} %" for level in LEVELS]
        return "\n".join(_lines("% inside", columns, "", rows))


def _lines(
    first: str, columns: Sequence[str], last: str, rows: Sequence[tuple[str, Sequence[str], str]]
) -> list[str]:
    """A table with names at the left, numbers at the right of their columns, then words."""
    rows = [(first, columns, last), *rows]
    longest = max(len(name) for name, _, _ in rows)
    widths = [max(map(len, cells)) for cells in zip(*(cells for _, cells, _ in rows), strict=True)]
    return [
        "  ".join(
            [name.ljust(longest), *(c.rjust(w) for c, w in zip(cells, widths, strict=True)), words]
        ).rstrip()
        for name, cells, words in rows
    ]


def calibrate(
    pair: Pair,
    n: int,
    event: Sequence[int],
    *,
    draws: int = 999,
    draw_shared: bool = False,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Calibration:
    """Tells whether the guide is the posterior of data that the model makes, and how it is not.

    Nothing of the pair is changed.  Whatever the ranks say, they say it of data like the model's
    own: look at draws of the model first.

    Args:
        pair: the pair, with continuous local latents.
        n: how many data to draw; a thousand show shifts of 0.15 standard deviations and widths
            wrong by a tenth.
        event: shape of one datum.
        draws: L, of the guide for each datum.
        draw_shared: condition shared latents on a draw of their guide rather than its mean.
        memory: budget for what is computed at once, bytes.
        compile: "auto" to compile draws and densities once that will pay, True at once, False
            never.
        progress: whether to show a bar.

    Returns:
        The ranks and what they say; print it, or see its figure.

    Raises:
        ValueError: if n or draws are too few to say anything, a latent is discrete or an auxiliary
            one, the guide has a row for each datum, or densities are no numbers.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> calibrate(pair, 60, (3,), draws=99, progress=False).ranks.shape
        torch.Size([60, 3])
    """
    require_pair(pair)
    if n < 50 or draws < 99:
        raise ValueError(
            f"calibrate needs n >= 50 and draws >= 99; got {n} and {draws}. With fewer, the ranks "
            "of any guide are uniform within noise, and weights have no tail to look at."
        )
    began = time.perf_counter()
    with evaluating(pair):
        model, guide, given = conditioned(pair, *blank(pair, 2, event), draw_shared)
        x, sites = joint_draws(pair, model, n, event)
        _refuse_rows(pair, x[:2])
        coordinates = Coordinates(model, guide, *first_batch(pair, x))
        _require_density(coordinates)
        truth = coordinates.of(sites)[0]
        ranks, k_hat = _ranked(pair, coordinates, x, truth, draws, memory, compile, progress)
    names = [*_names(coordinates, sites, n), *DENSITIES]
    found = findings(names, ranks, draws)
    return Calibration(ranks, draws, found, k_hat, given, time.perf_counter() - began)


def _refuse_rows(pair: Pair, x: Tensor) -> None:
    index = torch.arange(2, device=x.device)
    pair.find_parameters(x, index)
    if rows_of(pair.guide, list(pair.parameters()), x, index, 2) is not None:
        raise ValueError(
            "calibrate needs a guide that serves data it has not seen, those drawn here; got one "
            "that looks up a row for each datum by `index`. Use Amortized(...)."
        )


def _require_density(coordinates: Coordinates) -> None:
    if not coordinates.complete:
        raise ValueError(
            "calibrate needs log q(z | x), which is an integral where the guide draws auxiliary "
            "latents. Use a guide without auxiliary sites."
        )


def _names(coordinates: Coordinates, sites: Mapping[str, trace.Site], n: int) -> list[str]:
    """Of the entries of u: the site's name, numbered from 0 where it has several."""
    names = []
    for name in coordinates.names:
        shape, support = sites[name].value.shape, support_of(sites[name].distribution)
        if support is not None and bare(support) is not constraints.real:
            shape = biject_to(support).inverse_shape(shape)
        count = shape.numel() // n
        names += [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]
    return names


def _quantities(
    coordinates: Coordinates, truth: Tensor, x: Tensor, index: Tensor, draws: int
) -> list[Tensor]:
    """u ``(1 + k, B, D)``, log p(x, u) and log q(u | x) of the truth, then of k draws."""
    u = torch.cat([truth[None], coordinates.draws(draws, x, index)])
    point = coordinates.at(u, x, index, guide=True)
    return [u, point.log_joint, point.log_guide]


def _ranked(
    pair: Pair,
    coordinates: Coordinates,
    x: Tensor,
    truth: Tensor,
    draws: int,
    memory: int,
    compile: When,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Ranks ``(n, D + 2)`` and k-hats ``(n,)`` of all data, within the memory budget."""
    quantities = partial(_quantities, coordinates)
    few = (truth[:16], x[:16], torch.arange(16, device=x.device))
    per_draw = bytes_per_draw(lambda: quantities(*few, 1), 2 * 16)  # the truth and one draw
    size = chunks(memory, per_draw, draws + 1)
    source = sequential(x, size.rows)
    calls = len(source) * math.ceil(draws / size.particles)
    run = Compiled(quantities, [pair], when=compile, calls=calls, name="The calibration")
    parts = []
    with tqdm(total=source.size, disable=not progress, unit="datum", desc="calibrate") as bar:
        for batch, index in on_device(pair, source):
            at_once = max(1, min(draws, memory // (per_draw * len(batch)) - 1))
            parts.append(_ranked_batch(partial(run, truth[index], batch, index), draws, at_once))
            bar.update(len(batch))
    ranks, k_hats = zip(*parts, strict=True)
    return torch.cat(ranks), torch.cat(k_hats)


def _ranked_batch(
    quantities: Callable[[int], Sequence[Tensor]], draws: int, at_once: int
) -> tuple[Tensor, Tensor]:
    """Ranks ``(B, D + 2)`` and k-hats ``(B,)``; ties are broken at random."""
    below = tied = torch.zeros((), dtype=torch.long)

    def log_weight(k: int) -> Tensor:
        nonlocal below, tied
        u, log_joint, log_guide = quantities(k)
        values = torch.cat([u, torch.stack([log_joint, log_guide], -1)], -1)
        _require_numbers(values)
        below = below + (values[1:] < values[0]).sum(0).cpu()
        tied = tied + (values[1:] == values[0]).sum(0).cpu()
        return (log_joint - log_guide)[1:]

    k_hat = weights(log_weight, draws, at_once).log_evidence().k_hat
    return below + (torch.rand(below.shape) * (tied + 1)).long(), k_hat


def _require_numbers(values: Tensor) -> None:
    bad = values.isnan().any(-1)
    if bad.any():
        whose = "the latents that made the data" if bad[0].any() else "draws of the guide"
        raise ValueError(
            f"Ranks need numbers; log p(x, z) or log q(z | x) of {whose} is NaN. Let scales and "
            "rates stay away from 0, or use torch.float64."
        )
