"""What was claimed, and the rule by which it is said whether it held here.

The claims are those of "Inference Suboptimality in Variational Autoencoders" (Cremer, Li,
Duvenaud, 2018) that others have found as well.  Each is put as ranges for means over images, of
quantities that are formed image by image, so that what images have in common cancels.  With the
standard error s over images a mean m lies

    inside    if the whole of m - 2 s ... m + 2 s does,
    outside   if none of it does,

and a claim *held* if all its means lie inside, *did not hold* if one lies outside, and else is
*undecided*.  That is about these trained pairs: s does not tell how much another seed of the
training would change them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from torch import Tensor

from bayesvae.core.estimates import mean_and_error
from benchmarks.inference_gaps.measure import Measured

ERRORS = 2.0
"""Standard errors that a mean has to be away from an end of its range."""
DIAGONAL = "Normal"
HELD, FAILED, UNDECIDED = "held", "did not hold", "undecided"


# Quantities of one set-up, a number an image -----------------------------------------------------


class Gaps(NamedTuple):
    """The bounds of one split of one set-up, with one estimate of log p(x) chosen.

    Attributes:
        columns: as in `Measured.splits`.
        own: name of the guide's family.
        evidence: "importance" or "annealed".
    """

    columns: Mapping[str, Tensor]
    own: str
    evidence: str

    @property
    def log_evidence(self) -> Tensor:
        """log p(x), ``(N,)``."""
        return self.columns[self.evidence]

    @property
    def amortization(self) -> Tensor:
        """L[q*] - L[q_phi] in the guide's own family, ``(N,)``."""
        return self.columns[f"optimum_{self.own}"] - self.columns["guide"]

    def approximation(self, family: str) -> Tensor:
        """log p(x) - L[q*] of a family, ``(N,)``."""
        return self.log_evidence - self.columns[f"optimum_{family}"]


def better_evidence(results: Iterable[Measured]) -> str:
    """Which estimate of log p(x) to use for all images of all set-ups.

    Both are lower bounds in expectation, so the one with the higher mean over all images is the
    closer one.  Chosen once, not image by image: the higher of two noisy numbers is no bound.

    Example:
        >>> import torch
        >>> columns = {"importance": torch.tensor([-9.0, -5.0]), "annealed": -torch.ones(2) * 6}
        >>> better_evidence([Measured(DIAGONAL, {"train": columns}, torch.zeros(2), {})])
        'annealed'
    """
    splits = [split for each in results for split in each.splits.values()]
    total = {name: sum(s[name].sum() for s in splits) for name in ("importance", "annealed")}
    return max(total, key=lambda name: float(total[name]))


class Run(NamedTuple):
    """All set-ups on one data set.

    Attributes:
        measured: by set-up.
        evidence: "importance" or "annealed".
    """

    measured: Mapping[str, Measured]
    evidence: str

    def gaps(self, setup: str, split: str = "train") -> Gaps:
        """Of one split of one set-up."""
        found = self.measured[setup]
        return Gaps(found.splits[split], found.own, self.evidence)


# Claims ------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One mean and the range that it should lie in.

    Attributes:
        name: the quantity in words.
        values: makes it of a run, ``(N,)``, nats.
        low: by data set, or for all.
        high: likewise.
    """

    name: str
    values: Callable[[Run], Tensor]
    low: float | Mapping[str, float] = -inf
    high: float | Mapping[str, float] = inf

    def range(self, data: str) -> tuple[float, float]:
        """Both ends on a data set."""
        ends = (self.low, self.high)
        return tuple(end[data] if isinstance(end, Mapping) else end for end in ends)


class Claim(NamedTuple):
    """Something that was published.

    Attributes:
        text: in words.
        parts: all that it takes.
        setups: which set-ups are compared.
    """

    text: str
    parts: tuple[Part, ...]
    setups: tuple[str, ...]


class Judged(NamedTuple):
    """A part with what was found: mean, standard error, range and verdict."""

    name: str
    mean: float
    stderr: float
    low: float
    high: float
    verdict: str


class Outcome(NamedTuple):
    """A claim with what was found."""

    claim: Claim
    parts: tuple[Judged, ...]
    verdict: str


def verdict(mean: float, stderr: float, low: float, high: float) -> str:
    """Whether a mean lies inside a range, two standard errors counted.

    Example:
        >>> verdict(1.0, 0.2, 0.0, inf), verdict(1.0, 0.6, 0.0, inf), verdict(-1.0, 0.2, 0.0, inf)
        ('held', 'undecided', 'did not hold')
    """
    least, most = mean - ERRORS * stderr, mean + ERRORS * stderr
    if low < least and most < high:
        return HELD
    return FAILED if most < low or high < least else UNDECIDED


def together(verdicts: Sequence[str]) -> str:
    """Of all parts.

    Example:
        >>> together([HELD, HELD]), together([HELD, UNDECIDED]), together([UNDECIDED, FAILED])
        ('held', 'undecided', 'did not hold')
    """
    if FAILED in verdicts:
        return FAILED
    return UNDECIDED if UNDECIDED in verdicts else HELD


def _amortization(run: Run) -> Tensor:
    return run.gaps("standard").amortization


def _approximation(run: Run) -> Tensor:
    return run.gaps("standard").approximation(DIAGONAL)


def _change(setup: str, quantity: Callable[[Gaps], Tensor]) -> Callable[[Run], Tensor]:
    """What a set-up has more than the standard one, image by image."""
    return lambda run: quantity(run.gaps(setup)) - quantity(run.gaps("standard"))


def _of_diagonal(gaps: Gaps) -> Tensor:
    return gaps.approximation(DIAGONAL)


SIZES = ({"mnist": 1.0, "fashion-mnist": 2.0}, {"mnist": 3.0, "fashion-mnist": 10.0})
"""1 to 3 nats on MNIST as published; "several" on Fashion-MNIST is read as 2 to 10."""
CLAIMS = (
    Claim(
        "amortization and approximation gap are of the same order: within a factor of 3",
        (
            Part(
                "amortization - 3 approximation",
                lambda run: _amortization(run) - 3 * _approximation(run),
                high=0.0,
            ),
            Part(
                "approximation - 3 amortization",
                lambda run: _approximation(run) - 3 * _amortization(run),
                high=0.0,
            ),
        ),
        ("standard",),
    ),
    Claim(
        "either gap is 1 to 3 nats on MNIST, several on Fashion-MNIST",
        (
            Part("amortization gap", _amortization, *SIZES),
            Part("approximation gap", _approximation, *SIZES),
        ),
        ("standard",),
    ),
    Claim(
        "a decoder trained with a flow posterior is badly fitted by a diagonal normal",
        (
            Part(
                "approximation gap of the diagonal: flow's decoder - standard",
                _change("flow", _of_diagonal),
                low=0.0,
            ),
        ),
        ("standard", "flow"),
    ),
    Claim(
        "a larger decoder brings L[q*] towards log p(x)",
        (
            Part(
                "approximation gap: larger decoder - standard",
                _change("decoder", _of_diagonal),
                high=0.0,
            ),
        ),
        ("standard", "decoder"),
    ),
    Claim(
        "a larger encoder shrinks the amortization gap on training images",
        (
            Part(
                "amortization gap: larger encoder - standard",
                _change("encoder", lambda gaps: gaps.amortization),
                high=0.0,
            ),
        ),
        ("standard", "encoder"),
    ),
    Claim(
        "a larger encoder makes the ELBO of unseen images worse",
        (
            Part(
                "ELBO of unseen images: larger encoder - standard",
                lambda run: run.measured["encoder"].elbo - run.measured["standard"].elbo,
                high=0.0,
            ),
        ),
        ("standard", "encoder"),
    ),
)


def judged(run: Run, data: str, claims: Sequence[Claim] = CLAIMS) -> list[Outcome]:
    """What became of the claims that the set-ups at hand can tell about.

    Args:
        run: the set-ups.
        data: the data set's name.
        claims: what was published.
    """
    return [_outcome(claim, run, data) for claim in claims if set(claim.setups) <= {*run.measured}]


def _outcome(claim: Claim, run: Run, data: str) -> Outcome:
    parts = []
    for part in claim.parts:
        found = (*mean_and_error(part.values(run)), *part.range(data))
        parts.append(Judged(part.name, *found, verdict(*found)))
    return Outcome(claim, tuple(parts), together([part.verdict for part in parts]))
