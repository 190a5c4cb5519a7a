r"""The picture of the inference gaps.

The gap between the log evidence and the ELBO of a guide $q_\phi$ splits at the best member $q^*$
of the guide's own family, found for each datum by itself,

    log p(x) - L[q_phi]  =  (log p(x) - L[q*])  +  (L[q*] - L[q_phi])
       inference gap        approximation gap      amortization gap

("Inference Suboptimality in Variational Autoencoders", Cremer, Li and Duvenaud, 2018). Data
differ far more from one another than these bounds do, so standard errors are those of paired
differences.
"""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    WIDTH,
    Values,
    arrays_of,
    despined,
    fresh,
    marker,
    mean_in_words,
    stderr_of,
    tabled,
)

GAPS = {"amortization gap": ORANGE, "approximation gap": BLUE, "inference gap": PURPLE}
GAIN = "other family's q*"


class GapRow(NamedTuple):
    r"""What is known of one split of the data, per datum and in nats; all arrays ``(n,)``.

    An importance-sampled ``log_evidence`` lies below log p(x) in expectation, which makes the
    approximation gap too small. A $q^*$ optimised for too short makes it too large, and the
    amortization gap too small by as much. Both can turn a gap negative.

    Attributes:
        split: name of the split, such as "train" or "test".
        log_evidence: estimates of log p(x).
        guide: $L[q_\phi]$, the guide's ELBO.
        bounds: $L[q^*]$ by the name of the family in which $q^*$ was optimised.
        own: name of the guide's own family in ``bounds``. None if the guide is not of one family;
            its inference gap is then not divided.

    Example:
        >>> GapRow("test", log_evidence=[-14.0, -15.0], guide=[-15.0, -17.0]).own is None
        True
    """

    split: str
    log_evidence: Values
    guide: Values
    bounds: Mapping[str, Values] = MappingProxyType({})
    own: str | None = None


@rc_context(STYLE)
def gaps(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """Mean gaps, as a ladder from the guide's ELBO at 0 up to log p(x).

    A bar for each gap, the next from where the last ends; a marker for what the optimum of each
    other family gains over the guide; numbers and paired standard errors at the right.

    Args:
        rows: one for each split, drawn downwards on a shared axis.
        axes: drawn on if given; leave room for the numbers at its right.

    Returns:
        The axes, in nats per datum.

    Raises:
        ValueError: if there is no row, arrays are not alike, or ``own`` is not in ``bounds``.

    Example:
        >>> row = GapRow("test", [-14.0, -15.0], [-15.5, -17.5], {"normal": [-15, -16]}, "normal")
        >>> [round(float(bar.get_width()), 2) for bar in gaps([row]).patches]
        [1.0, 1.0]
    """
    rows = checked_rows(rows)
    axes = axes or fresh(_height(rows))
    ticks: dict[float, str] = {}
    line = 0.0
    for row in rows:
        line = _ladder(axes, row, line, ticks)
    axes.set(ylim=(line - 0.9, -0.7))
    axes.set_xlabel("nats per datum above the guide's ELBO (± 1 standard error)")
    tabled(axes, ticks)
    for label, name in zip(axes.get_yticklabels(), ticks.values(), strict=True):
        label.set_fontweight("bold" if name in [row.split for row in rows] else "normal")
    handles, labels = axes.get_legend_handles_labels()
    drawn = dict(zip(labels, handles, strict=True))
    order = [name for name in (*GAPS, GAIN, "log p(x)") if name in drawn]
    legend = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4}
    axes.legend([drawn[name] for name in order], order, **legend)
    return despined(axes, "left")


@rc_context(STYLE)
def gap_curves(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """Gaps of single data, each gap sorted by itself: do all data lose a little, or a few much?

    The area under a curve is the mean gap.

    Args:
        rows: one for each split, told apart by their dashes.
        axes: drawn on if given.

    Returns:
        The axes: gaps in nats against the percentage of data with a smaller one.

    Raises:
        ValueError: as in ``gaps``.

    Example:
        >>> axes = gap_curves([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])])
        >>> axes.lines[0].get_ydata().tolist()
        [1.0, 1.5]
    """
    rows = checked_rows(rows)
    axes = axes or fresh(3.4)
    for row, dashes in zip(rows, itertools.cycle(DASHES), strict=False):
        percent = (np.arange(len(row.guide)) + 0.5) * 100 / len(row.guide)
        style = {"linestyle": dashes, "marker": marker(len(percent))}
        for _, gap, difference in rungs(row):
            if gap != GAIN:
                label = f"{gap}, {row.split}"
                axes.plot(percent, np.sort(difference), color=GAPS[gap], label=label, **style)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set(xlim=(0, 100), xlabel="data, sorted by their gap (%)", ylabel="gap of a datum (nats)")
    axes.legend(loc="upper left")
    return despined(axes)


@rc_context(STYLE)
def gap_figure(rows: Sequence[GapRow]) -> Figure:
    """The whole story in two panels: ``gaps`` above ``gap_curves``.

    Args:
        rows: one for each split.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: as in ``gaps``.

    Example:
        >>> len(gap_figure([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])]).axes)
        2
    """
    heights = [_height(checked_rows(rows)), 3.0]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=heights, gridspec_kw={"hspace": 0.1})
    gaps(rows, upper)
    gap_curves(rows, lower)
    return figure


def checked_rows(rows: Sequence[GapRow]) -> list[GapRow]:
    """The rows, as float64 arrays.

    Raises:
        ValueError: if there is no row, arrays are not alike, or ``own`` is not in ``bounds``.
    """
    if not rows:
        raise ValueError("`rows` must hold a GapRow for each split; got none. Pass [GapRow(...)].")
    checked = []
    for split, log_evidence, guide, bounds, own in rows:
        if own is not None and own not in bounds:
            raise ValueError(
                f"`own` of '{split}' must be one of its `bounds`, {list(bounds)}; got '{own}'. "
                "Use None for a guide that is not of one family."
            )
        named = {"log_evidence": log_evidence, "guide": guide}
        named |= {f"bounds['{name}']": bound for name, bound in bounds.items()}
        arrays = arrays_of(named, f"Pass finite values `(n,)`, for each datum of '{split}'.")
        evidence, elbo, *optima = arrays.values()
        checked.append(GapRow(split, evidence, elbo, dict(zip(bounds, optima, strict=True)), own))
    return checked


def rungs(row: GapRow) -> list[tuple[str, str, np.ndarray]]:
    """Label, name and differences ``(n,)`` of each gap, then of each other family's gain."""
    best = row.bounds.get(row.own, row.guide)
    rungs = [
        (f"guide → {row.own} q*", "amortization gap", best - row.guide),
        (f"{row.own} q* → log p(x)", "approximation gap", row.log_evidence - best),
    ]
    if row.own is None:
        rungs = [("guide → log p(x)", "inference gap", row.log_evidence - row.guide)]
    others = (name for name in row.bounds if name != row.own)
    return rungs + [(f"guide → {name} q*", GAIN, row.bounds[name] - row.guide) for name in others]


def _ladder(axes: Axes, row: GapRow, line: float, ticks: dict[float, str]) -> float:
    """Draws one split from ``line`` downwards and labels it in ``ticks``; the next free line."""
    across, head, end = axes.get_yaxis_transform(), line, 0.0
    evidence, elbo = mean_in_words(row.log_evidence), mean_in_words(row.guide)
    text = f"log p(x) = {evidence},  guide's ELBO = {elbo}  (n = {len(row.guide)})"
    axes.text(0.01, line, text, transform=across, va="center", fontsize=9, color=GREY)
    ticks[line] = row.split
    for label, name, difference in rungs(row):
        line += 1.0
        ticks[line], mean = label, difference.mean()
        error = {"xerr": stderr_of(difference), "ecolor": "black"}
        if name == GAIN:
            axes.errorbar(mean, line, fmt="D", color=GREEN, label=name, **error)
        else:
            axes.barh(line, mean, left=end, height=0.8, color=GAPS[name], label=name)
            end += mean
            axes.errorbar(end, line, fmt="none", **error)
        axes.text(1.01, line, mean_in_words(difference), transform=across, va="center")
    axes.vlines(0.0, head + 0.5, line + 0.5, color=GREY, linewidth=0.8)
    axes.vlines(end, head + 0.5, line + 0.5, color=GREY, linestyle=":", label="log p(x)")
    return line + 1.5


def _height(rows: Sequence[GapRow]) -> float:
    return 1.1 + 0.27 * sum(1.5 + len(rungs(row)) for row in rows)
