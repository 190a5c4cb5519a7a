"""What was aimed at: a share of somebody else's time, case by case.

The figure is the median over rounds of the ratio within a round.  Where several ways of writing
the same thing are compared, the fastest of them is the one to beat.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.speed import measure
from benchmarks.speed.contestants import HAND_COMPILED

Rounds = Sequence[Mapping[str, float]]


class Target(NamedTuple):
    """``name`` shall take at most ``limit`` times as long as the fastest of ``others``."""

    case: str
    name: str
    others: tuple[str, ...]
    limit: float
    stretch: float | None = None


class Outcome(NamedTuple):
    """What became of a target: the other one compared with, the ratio, and whether it is met."""

    target: Target
    other: str
    ratio: float
    met: bool

    def __str__(self) -> str:
        goal = f"at most {self.target.limit:.2f}"
        if self.target.stretch is not None:
            goal += f" (stretch {self.target.stretch:.2f})"
        word = "met" if self.met else "MISSED"
        if self.target.stretch is not None and self.ratio <= self.target.stretch:
            word = "met, stretch too"
        return (
            f"{self.target.case:10}  {self.target.name + ' / ' + self.other:26}  "
            f"{self.ratio:5.2f}  {goal:28}  {word}"
        )


TARGETS = (
    Target("digits", "bayesvae", ("hand",), 0.45),
    Target("digits", "bayesvae", ("numpyro",), 0.9),
    Target("digits", "bayesvae", ("numpyro-loop",), 1.1, 0.9),
    Target("digits", "bayesvae", ("pyro",), 1 / 8),
    Target("mnist", "bayesvae", ("hand",), 0.95),
    Target("mnist", "bayesvae", HAND_COMPILED, 1.05),
    Target("mnist", "bayesvae", ("numpyro-loop",), 1.2, 1.0),
    Target("mnist", "bayesvae-bf16", ("bayesvae",), 1.0),
    *(
        Target(case, "bayesvae", ("bayesvae-eager",), 1 / 1.5)
        for case in ("mixture", "vamp", "particles", "full")
    ),
    Target("epochs", "bayesvae", ("pythae",), 1.0),
    Target("epochs", "bayesvae", ("pyro",), 1.0),
    Target("epochs", "bayesvae", ("hand",), 1.0),
    Target("epochs", "bayesvae", ("numpyro",), 1.1),
)


def outcomes(rounds: Mapping[str, Rounds], targets: Sequence[Target] = TARGETS) -> list[Outcome]:
    """What became of the targets that this run can tell about.

    Args:
        rounds: the rounds of each case.
        targets: what was aimed at.

    Example:
        >>> seen = outcomes({"digits": [{"bayesvae": 1.0, "hand": 4.0}]})
        >>> [(o.target.limit, o.ratio, o.met) for o in seen]
        [(0.45, 0.25, True)]
    """
    found = []
    for target in targets:
        of_case = rounds.get(target.case, [])
        known = [o for o in target.others if of_case and o in of_case[0]]
        if not known or target.name not in of_case[0]:
            continue
        other = min(known, key=lambda name: measure.median(of_case, name))
        ratio = measure.ratio(of_case, target.name, other)
        found.append(Outcome(target, other, ratio, ratio <= target.limit))
    return found


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For the file."""
    return outcome.target._asdict() | outcome._asdict() | {"target": str(outcome.target.case)}
