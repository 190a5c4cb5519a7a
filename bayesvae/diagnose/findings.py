"""What the ranks of true latents among a guide's draws say of the guide, in words and numbers.

Three tests of each quantity: of its location, of its scatter, and of any departure from uniform
ranks (`bayesvae.diagnose.uniformity`).  The p-values of all tests of all quantities are raised
together, so that a guide that is right gets any other verdict than `FINE` with a chance of 5 % at
most.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesvae.diagnose.uniformity import (
    Scores,
    Uniform,
    holm,
    scores,
    symmetry_p_values,
    two_sided,
)

ERROR = 0.05
"""The chance that any verdict speaks against a guide that is right."""
FINE = "uniform within noise"
"""The verdict where nothing speaks against uniform ranks."""
DENSITIES = ("log p(x, z)", "log q(z | x)")
"""Quantities that depend on the datum and on all latents together."""

# Where the truth is low among the draws, high, too scattered, too close together.
_WORDS = {
    "log p(x, z)": ("draws too likely", "draws too unlikely", "", ""),
    "log q(z | x)": ("truth too far out", "truth too central", "", ""),
}
_OF_A_LATENT = ("shifted up", "shifted down", "too narrow", "too wide")
_OTHERWISE = "of another shape"


class Finding(NamedTuple):
    """What the ranks of one quantity say, as draws of the guide against the truth.

    Shift and width are those of normal scores (`bayesvae.diagnose.uniformity.scores`); truths
    beyond all draws make them underestimates.

    Attributes:
        name: of the quantity.
        verdict: in words.
        shift: how far draws lie above the truth, in standard deviations of the draws.
        shift_z: in its standard errors.
        width: scatter of the draws over that of the truth among them, 1 if right; NaN for
            densities, and where the truth lies beyond all draws too often to tell.
        width_z: how far below 1, if negative, as a standard normal would be by chance; or NaN.
        uniform: p-value of the ranks' empirical distribution function.
        symmetric: p-value of ranks symmetric about the middle; NaN for densities.
        p_value: the least of its tests, as one among the tests of all quantities.
    """

    name: str
    verdict: str
    shift: float
    shift_z: float
    width: float
    width_z: float
    uniform: float
    symmetric: float
    p_value: float

    @property
    def fine(self) -> bool:
        """Whether nothing speaks against uniform ranks."""
        return self.verdict == FINE

    def cells(self) -> list[str]:
        """The numbers as a table shows them, under `COLUMNS`."""
        numbers = [f"{self.shift:+.3f}", f"{self.shift_z:+.1f}"]
        numbers += ["-", "-"] if math.isnan(self.width) else [f"{self.width:.3f}"]
        numbers += [] if math.isnan(self.width) else [f"{self.width_z:+.1f}"]
        return numbers + [probability(p) for p in (self.uniform, self.symmetric)]


COLUMNS = ("shift", "z", "width", "z", "p(uniform)", "p(symmetric)")
"""What `Finding.cells` holds."""


def probability(p: float) -> str:
    """A p-value in words; "-" if there is none.

    Example:
        >>> probability(0.0314), probability(1e-20)
        ('0.031', '< 1e-6')
    """
    if math.isnan(p):
        return "-"
    return f"{p:.2g}" if p >= 1e-6 else "< 1e-6"


def findings(names: Sequence[str], ranks: Tensor, draws: int) -> tuple[Finding, ...]:
    """A finding for each quantity.

    Args:
        names: of the quantities, Q of them; those in `DENSITIES` are read as densities.
        ranks: of the truth among the draws, ``(n, Q)``, whole numbers in 0 ... L.
        draws: L.

    Example:
        >>> (found,) = findings(["z"], torch.arange(500)[:, None] // 5, 99)
        >>> found.verdict
        'uniform within noise'
        >>> (found,) = findings(["z"], 25 + torch.arange(500)[:, None] // 10, 99)
        >>> found.verdict
        'too wide'
    """
    found = scores(ranks, draws)
    density = torch.tensor([name in DENSITIES for name in names])
    unknown = density | (_cut_off(ranks, draws) & (found.scatter_z < 0))
    uniform = Uniform(len(ranks), draws).p_values(ranks)
    scattered = two_sided(found.scatter_z).masked_fill(unknown, 1.0)
    adjusted = holm(torch.stack([two_sided(found.location_z), scattered, uniform]))
    numbers = [
        -found.location,
        -found.location_z,
        (1 / found.scatter).masked_fill(unknown, torch.nan),
        -found.scatter_z.masked_fill(unknown, torch.nan),
        uniform,
        symmetry_p_values(ranks, draws).masked_fill(density, torch.nan),
        adjusted.amin(0),
    ]
    verdicts = _verdicts(names, found, adjusted <= ERROR)
    rows = torch.stack(numbers, -1).tolist()
    return tuple(Finding(*each, *row) for *each, row in zip(names, verdicts, rows, strict=True))


def _cut_off(ranks: Tensor, draws: int) -> Tensor:
    """Whether so many truths lie beyond all draws at one end that they only seem close, ``(Q,)``.

    More than one in a hundred: fewer hardly change the scatter.
    """
    beyond = torch.stack([ranks == 0, ranks == draws]).double().mean(1).amax(0)
    return beyond > 0.01 + 1 / (draws + 1)


def _verdicts(names: Sequence[str], found: Scores, rejected: Tensor) -> list[str]:
    signs = torch.stack([found.location_z, found.scatter_z]).gt(0)
    each = zip(names, signs.T.tolist(), rejected.T.tolist(), strict=True)
    return [_verdict(_WORDS.get(name, _OF_A_LATENT), *rest) for name, *rest in each]


def _verdict(words: Sequence[str], positive: Sequence[bool], rejected: Sequence[bool]) -> str:
    low, high, scattered, close = words
    located, spread, _ = rejected
    said = [high if positive[0] else low] if located else []
    said += [scattered if positive[1] else close] if spread else []
    return " and ".join(said) or (_OTHERWISE if any(rejected) else FINE)


def worst(found: Sequence[Finding], count: int) -> list[Finding]:
    """Those with the smallest p-values, in the order in which they came."""
    chosen = sorted(range(len(found)), key=lambda i: found[i].p_value)[:count]
    return [found[i] for i in sorted(chosen)]
