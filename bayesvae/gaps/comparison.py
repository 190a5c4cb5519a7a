"""The comparison's result: per-datum arrays, a table, a CSV file and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from bayesvae import plots
from bayesvae.core.estimates import Estimate, mean_and_error
from bayesvae.core.files import write_aside
from bayesvae.core.pair import Pair
from bayesvae.core.tables import aligned
from bayesvae.gaps import pictures
from bayesvae.gaps.costs import Price
from bayesvae.gaps.inference_data import inference_data
from bayesvae.gaps.split_results import Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(NamedTuple):
    """Amortized against per-datapoint inference, the model held fixed.

    ``print(comparison)`` shows the table.

    Attributes:
        splits: by name, such as "train" and "unseen".
        prices: of the guide, of each family's optimisation, and of steps from the guide.
        given: what the estimates are conditional on, in words; empty if on nothing.
        left_out: what was not done, and why, in words; empty if all was.
        training_seconds: what the guide's training is said to have taken; None if unknown.
    """

    splits: Mapping[str, Split]
    prices: tuple[Price, ...]
    given: str = ""
    left_out: str = ""
    training_seconds: float | None = None

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
        writer.writerow(["split", "position", *next(iter(self.splits.values())).columns()])
        for name, split in self.splits.items():
            lists = [column.tolist() for column in split.columns().values()]
            for position, row in enumerate(zip(*lists, strict=True)):
                writer.writerow([name, position, *(f"{number:.6g}" for number in row)])
        write_aside(path, lambda aside: aside.write_text(text.getvalue()))

    def to_inference_data(self) -> Any:
        """Every estimate of every datum as an ``arviz.InferenceData``.

        A group a split; dims ``datum``, ``family`` and ``steps``; variables ``log_evidence``,
        ``guide_elbo``, ``optimum``, ``semi_amortized``, each with its ``_stderr``, in nats.

        Raises:
            ImportError: if ArviZ is not installed; ``pip install 'bayesvae[arviz]'``.
        """
        return inference_data(self.splits)

    def break_even(self) -> tuple[str, int | None] | None:
        """From how many unseen data on the guide, its training included, takes less time.

        Returns:
            The route that it is compared with, the search in the guide's own family or else the
            quickest, and the number, None if there is none (see `bayesvae.gaps.costs`). None where
            the training time is not known or nothing was searched.
        """
        guide, *others = self.prices
        split = next(iter(self.splits.values()))
        searches = {price.route: price for price in others if price.route in split.bounds}
        if self.training_seconds is None or not searches:
            return None
        quickest = min(searches.values(), key=lambda price: price.seconds)
        other = searches.get(split.own, quickest)
        return other.route, guide.break_even(other, self.training_seconds)

    def figure(self) -> Figure:
        """The gaps of each split, and their distribution over data."""
        return plots.gap_figure(self._rows())

    def figures(self, pair: Pair | None = None, names: Sequence[str] = ()) -> dict[str, Figure]:
        """Every figure of the comparison, by name.

        Args:
            pair: the pair that was compared, for the figures that run it again.
            names: of the entries of data that are vectors.

        Returns:
            "gaps", "ordered_gaps" and "gaps_against_evidence". With the pair, for each split,
            "worst_data_train" where data and their reconstructions can be drawn, and
            "posteriors_train" where the pair has one latent of two real entries.
        """
        rows = self._rows()
        found = {
            "gaps": plots.gap_figure(rows),
            "ordered_gaps": plots.ordered_gaps(rows).figure,
            "gaps_against_evidence": plots.gaps_against_evidence(rows).figure,
        }
        for name, split in self.splits.items() if pair is not None else ():
            # What of a pair cannot be had, as the mean of a likelihood, is said by a ValueError.
            with suppress(ValueError):
                found[f"worst_data_{name}"] = pictures.worst_data(pair, split, names)
            found[f"posteriors_{name}"] = pictures.posterior_panels(pair, split)
        return {name: figure for name, figure in found.items() if figure is not None}

    def _rows(self) -> list[plots.GapRow]:
        return [
            plots.GapRow(
                name,
                split.log_evidence.value,
                split.guide.value,
                {family: bound.value for family, bound in split.bounds.items()},
                split.own,
            )
            for name, split in self.splits.items()
        ]

    def _bounds(self) -> str:
        rows = [(name, *row) for name, split in self.splits.items() for row in _bounds_of(split)]
        return aligned([("split", "bound", "nats per datum", ""), *rows])

    def _gaps(self) -> str:
        rows = []
        for name, split in self.splits.items():
            for kind, family, values in split.gaps():
                share = f"{100 * (values > 1).double().mean():.1f} %"
                rows.append((name, kind, family, _number(values), share))
        head = ("split", "gap (paired)", "family", "nats per datum", "above 1 nat")
        return aligned([head, *rows])

    def _prices(self) -> str:
        rows = [
            (
                p.route,
                _seconds(p.seconds),
                f"{p.parameters:,}",
                _bytes(p.stored),
                _bytes(p.working),
            )
            for p in self.prices
        ]
        counted = ("parameters for 1,000 data", "stored", "at work, a datum")
        table = aligned([("route", "seconds per 1,000 data", *counted), *rows])
        return "\n".join([table, *self._break_even_words()])

    def _break_even_words(self) -> Iterator[str]:
        found = self.break_even()
        if found is None:
            return
        route, number = found
        trained = f"with {_seconds(self.training_seconds)} s of training charged to it"
        if number is None:
            yield f"The guide is never cheaper than {route}, {trained}."
        else:
            yield f"From {number:,} unseen data on the guide is cheaper than {route}, {trained}."


def _bounds_of(split: Split) -> Iterator[tuple[str, str, str]]:
    """Every bound of a split, from above: its name, its mean, and how it was had."""
    if split.annealed is not None:
        yield "log p(x)", _number(split.annealed.upper.value), "annealing backwards: no bound"
        note = "annealing, a lower bound; all gaps are from it"
        yield "log p(x)", _number(split.annealed.lower.value), note
    yield "log p(x)", _number(split.importance.value), _sampled(split.importance)
    for family, bound in reversed(split.bounds.items()):
        note = f"per-datapoint optimum; last movement {split.movement[family]:+.4f}"
        yield f"L[q*] {family}", _number(bound.value), note
    for k in sorted(split.semi, reverse=True):
        note = f"{k} gradient step{'' if k == 1 else 's'} from the guide"
        yield f"L[q_semi] {split.own}", _number(split.semi[k].value), note
    yield "L[q_phi] guide", _number(split.guide.value), "the pair's own guide"


def _sampled(importance: Estimate) -> str:
    size = importance.effective_sample_size.median()
    note = f"importance sampling, median effective sample size {size:.0f}"
    doubted = int((~importance.trusted).sum())
    return note + f"; k-hat above 0.7 for {doubted} of {len(importance.value)}" * bool(doubted)


def _bytes(count: int) -> str:
    """A number of bytes, to three digits.

    Example:
        >>> _bytes(999), _bytes(1_234_567)
        ('999 B', '1.23 MB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _seconds(number: float) -> str:
    """A time, to three digits and no further than the second.

    Example:
        >>> _seconds(0.0012345), _seconds(12.345), _seconds(1234.5)
        ('0.00123', '12.3', '1,234')
    """
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def _number(values: Tensor) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:9.3f} +- {error:.3f}"
