"""What several trainings of one model leave: their courses, a table, a CSV file and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from bayesvae import plots
from bayesvae.core.estimates import Estimate, mean_and_error
from bayesvae.core.files import write_aside
from bayesvae.core.pair import Pair
from bayesvae.core.tables import aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Moment(NamedTuple):
    """A model and its guide at one moment of their training; bounds are per datum, nats.

    Attributes:
        seconds: of training until then.
        steps: optimisation steps until then.
        train: L[q] of training data under the route's own guide, a lower bound of log p(x).
        optimum: L[q*] of unseen data, the model held fixed: no matter of the guide.
        log_evidence: log p(x) of unseen data, likewise.
        unseen: L[q] of unseen data under the route's own guide; None if it has rows for the
            training data alone.
    """

    seconds: float
    steps: int
    train: Estimate
    optimum: Estimate
    log_evidence: Estimate
    unseen: Estimate | None

    def estimates(self) -> dict[str, Estimate | None]:
        """The estimates by name, in the order of the table."""
        return {
            "train": self.train,
            "unseen": self.unseen,
            "optimum": self.optimum,
            "log_evidence": self.log_evidence,
        }


class Course(NamedTuple):
    """One route's training.

    Attributes:
        pair: the pair as it ended.
        moments: from before the first step to after the last.
        compiling: how many of the seconds compiled the step.
    """

    pair: Pair
    moments: tuple[Moment, ...]
    compiling: float


class TrainingComparison(NamedTuple):
    """One model trained in several ways, from one start and for one time.

    ``print(comparison)`` shows the table.

    Attributes:
        courses: by the route's name.
    """

    courses: Mapping[str, Course]

    def __str__(self) -> str:
        """The courses, then how far apart the models ended."""
        head = ("route", "seconds", "steps", "train L[q]")
        head += ("unseen L[q]", "unseen L[q*]", "unseen log p(x)")
        return f"{aligned([head, *self._moments()])}\n\n{aligned(self._ends())}"

    def gain(self, route: str, over: str) -> Tensor:
        """log p(x) of each unseen datum under the model of one route minus that of another.

        Args:
            route: a name.
            over: the other.

        Returns:
            ``(N,)``, nats.
        """
        ends = [self.courses[name].moments[-1].log_evidence.value for name in (route, over)]
        return ends[0] - ends[1]

    def to_csv(self, path: Path | str) -> None:
        """Writes one line a moment: means over data, nats per datum, and their standard errors.

        Args:
            path: the file, written aside and renamed.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        names = next(iter(self.courses.values())).moments[0].estimates()
        columns = [column for name in names for column in (name, f"{name}_stderr")]
        writer.writerow(["route", "seconds", "steps", "compiling", *columns])
        for route, course in self.courses.items():
            for m in course.moments:
                numbers = [n for each in m.estimates().values() for n in _mean(each)]
                cells = ["" if n is None else f"{n:.6g}" for n in numbers]
                times = [f"{m.seconds:.6g}", m.steps, f"{course.compiling:.6g}"]
                writer.writerow([route, *times, *cells])
        write_aside(path, lambda aside: aside.write_text(text.getvalue()))

    def figure(self) -> Figure:
        """L[q] of training data and L[q*] of unseen ones against seconds, after the first step."""
        figure = plots.training_routes({n: _curve(c.moments) for n, c in self.courses.items()})
        titles = ("training data, L[q] of the route", "unseen data, L[q*] given the model")
        for axes, title in zip(figure.axes, titles, strict=True):
            axes.set_title(title, loc="left", fontsize=10)
        return figure

    def _moments(self) -> Iterator[tuple[str, ...]]:
        for name, course in self.courses.items():
            for m in course.moments:
                cells = map(_shown, m.estimates().values())
                yield (name, f"{m.seconds:7.2f}", f"{m.steps:6,}", *cells)

    def _ends(self) -> Iterator[tuple[str, ...]]:
        """Of each model the lead over the first one's, and what stands in the way of trust."""
        first = next(iter(self.courses))
        yield ("model of", f"log p(x) over {first} (paired)", "k-hat above 0.7", "compiling")
        for name, course in self.courses.items():
            mean, error = mean_and_error(self.gain(name, first))
            lead = "" if name == first else f"{mean:+.3f} +- {error:.3f}"
            trusted = course.moments[-1].log_evidence.trusted
            doubted = f"{int((~trusted).sum())} of {len(trusted)} data"
            yield (name, lead, doubted, f"{course.compiling:.1f} s")


def _curve(moments: tuple[Moment, ...]) -> plots.RouteCurve:
    # Time zero has no place on a logarithmic axis, nor the untrained model on the scale of others.
    trained = moments[1:]
    train, train_error = zip(*(m.train.mean() for m in trained), strict=True)
    unseen, unseen_error = zip(*(m.optimum.mean() for m in trained), strict=True)
    return plots.RouteCurve([m.seconds for m in trained], train, unseen, train_error, unseen_error)


def _mean(estimate: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if estimate is None else estimate.mean()


def _shown(estimate: Estimate | None) -> str:
    mean, error = _mean(estimate)
    return "-" if mean is None else f"{mean:9.3f} +- {error:.3f}"
