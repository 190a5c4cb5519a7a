"""The comparison's result: per-datum arrays, a table, a CSV file and a figure."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from bayesvae import plots
from bayesvae.checkpoint import write_aside
from bayesvae.estimates import Estimate, mean_and_error


class Split(NamedTuple):
    """One set of data; every estimate is per datum, in the order of the data, nats.

    Attributes:
        guide: L[q_phi], the guide's own bound.
        log_evidence: log p(x) from the pooled proposal, a lower bound in expectation.
        bounds: L[q*] by family.
        movement: by family, what the last window of the ascent still gained (mean over data).
        own: the guide's own family among ``bounds``; None if it is none of them.
    """

    guide: Estimate
    log_evidence: Estimate
    bounds: Mapping[str, Estimate]
    movement: Mapping[str, float]
    own: str | None

    @property
    def amortization_gap(self) -> Tensor | None:
        """L[q*] - L[q_phi] in the guide's own family, ``(N,)``; None if it has none."""
        return None if self.own is None else self.improvement(self.own)

    @property
    def approximation_gap(self) -> Tensor | None:
        """log p(x) - L[q*] of the guide's own family, ``(N,)``; None if it has none."""
        return None if self.own is None else self.shortfall(self.own)

    @property
    def inference_gap(self) -> Tensor:
        """log p(x) - L[q_phi] = KL(q_phi || p(z | x)), ``(N,)``."""
        return self.log_evidence.value - self.guide.value

    def shortfall(self, family: str) -> Tensor:
        """The approximation gap of a family, log p(x) - L[q*], ``(N,)``."""
        return self.log_evidence.value - self.bounds[family].value

    def improvement(self, family: str) -> Tensor:
        """L[q*] of a family minus the guide's bound, ``(N,)``."""
        return self.bounds[family].value - self.guide.value


class Price(NamedTuple):
    """What a route to q costs for a thousand data.

    Attributes:
        route: "guide" or a family's name.
        seconds: to find q, per thousand data.
        parameters: numbers stored to serve a thousand data.
    """

    route: str
    seconds: float
    parameters: int


class Comparison(NamedTuple):
    """Amortized against per-datapoint inference, the model held fixed.

    ``print(comparison)`` shows the table.

    Attributes:
        splits: by name, such as "train" and "unseen".
        prices: of the guide and of each family's optimisation.
        given: what the estimates are conditional on, in words; empty if on nothing.
        left_out: why no families were fitted, in words; empty if they were.
    """

    splits: Mapping[str, Split]
    prices: tuple[Price, ...]
    given: str = ""
    left_out: str = ""

    def __str__(self) -> str:
        """The table."""
        blocks = [self._bounds(), self._gaps(), self._prices()]
        if self.given:
            blocks.insert(0, f"All of it {self.given}.")
        if self.left_out:
            blocks.append(self.left_out)
        return "\n\n".join(blocks)

    def to_csv(self, path: Path | str) -> None:
        """Writes one line a datum; columns ``split, position`` and every bound, nats.

        Args:
            path: the file, written aside and renamed.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        families = list(dict.fromkeys(f for s in self.splits.values() for f in s.bounds))
        names = [f"optimum_{family}" for family in families]
        errors = [f"{name}_stderr" for name in names]
        writer.writerow(
            [
                *("split", "position", "log_evidence", "log_evidence_stderr"),
                *("effective_sample_size", "guide_elbo", "guide_elbo_stderr", *names, *errors),
            ]
        )
        for name, split in self.splits.items():
            columns = [
                split.log_evidence.value,
                split.log_evidence.stderr,
                split.log_evidence.effective_sample_size,
                split.guide.value,
                split.guide.stderr,
                *(split.bounds[f].value for f in families),
                *(split.bounds[f].stderr for f in families),
            ]
            lists = [column.tolist() for column in columns]
            for position, row in enumerate(zip(*lists, strict=True)):
                writer.writerow([name, position, *(f"{number:.6g}" for number in row)])
        write_aside(path, lambda aside: aside.write_text(text.getvalue()))

    def figure(self) -> Figure:
        """The gaps of each split, and their distribution over data."""
        return plots.gap_figure(
            [
                plots.GapRow(
                    name,
                    split.log_evidence.value,
                    split.guide.value,
                    {family: bound.value for family, bound in split.bounds.items()},
                    split.own,
                )
                for name, split in self.splits.items()
            ]
        )

    def _bounds(self) -> str:
        rows = []
        for name, split in self.splits.items():
            size = split.log_evidence.effective_sample_size
            note = f"importance sampling, median effective sample size {size.median():.0f}"
            rows.append((name, "log p(x)", _number(split.log_evidence.value), note))
            for family, bound in reversed(split.bounds.items()):
                note = f"per-datapoint optimum; last movement {split.movement[family]:+.4f}"
                rows.append((name, f"L[q*] {family}", _number(bound.value), note))
            rows.append(
                (
                    name,
                    "L[q_phi] guide",
                    _number(split.guide.value),
                    "the pair's own guide",
                )
            )
        return _table(("split", "bound", "nats per datum", ""), rows)

    def _gaps(self) -> str:
        rows = []
        for name, split in self.splits.items():
            for kind, family, values in _gaps_of(split):
                share = f"{100 * (values > 1).double().mean():.1f} %"
                rows.append((name, kind, family, _number(values), share))
        head = ("split", "gap (paired)", "family", "nats per datum", "above 1 nat")
        return _table(head, rows)

    def _prices(self) -> str:
        rows = [(p.route, f"{p.seconds:.3g}", f"{p.parameters:,}") for p in self.prices]
        return _table(("route", "seconds per 1,000 data", "parameters for 1,000 data"), rows)


def _gaps_of(split: Split) -> Iterator[tuple[str, str, Tensor]]:
    """Every gap of a split: its kind, its family, and its values ``(N,)``."""
    if split.own is not None:
        yield "amortization gap", split.own, split.amortization_gap
    for family in split.bounds:
        yield "approximation gap", family, split.shortfall(family)
    for family in split.bounds:
        if family != split.own:
            yield "improvement over the guide", family, split.improvement(family)
    yield "log p(x) - L[q_phi]", "guide", split.inference_gap


def _number(values: Tensor) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:9.3f} +- {error:.3f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)
