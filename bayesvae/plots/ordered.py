r"""Pictures of single data's inference gaps: in order, and against how likely the data are.

A mean gap of half a nat may be half a nat of every datum, or five of every tenth.  The first is
the price of a family; the second says where a guide fails, and whether on unlikely data.

Noise of an estimate of log p(x) is in both coordinates of the second picture, once as log p(x) and
once in log p(x) - ELBO.  Where it is as large as the gaps it draws them upwards to the right by
itself, so a gap that falls towards the right is no such artefact.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from bayesvae.plots.ladders import GAIN, GAPS, GapRow, checked_rows, rungs
from bayesvae.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    despined,
    fresh,
    headroom,
    number,
)

_SPLITS = tuple(zip((BLUE, ORANGE, GREEN, PURPLE), "ox^s", DASHES, strict=True))
_CASING = withStroke(linewidth=3.6, foreground="white")
_BLOCK = 125.0  # the percentages of one split, and space


@rc_context(STYLE)
def ordered_gaps(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    r"""Every datum's gap, from the smallest to the largest, and what it is made of.

    The black line is the inference gap, in order. Below it lie the same datum's amortization gap
    and, from where that ends, its approximation gap; a negative one reaches back. Unlike in
    ``gap_curves`` one place is one datum.

    Args:
        rows: one for each split, side by side.
        axes: drawn on if given; leave room above for what is written there.

    Returns:
        The axes, in nats; over each split stands the share of data with more than 1 nat.

    Raises:
        ValueError: as in ``gaps``.

    Example:
        >>> axes = ordered_gaps([GapRow("test", [-14.0, -15.0], [-15.5, -15.5])])
        >>> axes.texts[0].get_text()
        'test (n = 2)\n50.0 % above 1 nat'
    """
    rows = checked_rows(rows)
    axes = axes or fresh(3.6)
    totals = [row.log_evidence - row.guide for row in rows]
    for i, row in enumerate(rows):
        _ordered(axes, row, totals[i], _BLOCK * i)
    _nat(axes)
    top, note = headroom(np.concatenate(totals), 1.5)
    axes.set(xlim=(-3, _BLOCK * len(rows) - 22), ylim=(None, top))
    ends = [(_BLOCK * i + place, str(place)) for i in range(len(rows)) for place in (0, 50, 100)]
    axes.set_xticks(*zip(*ends, strict=True))
    words = ["data of a split, sorted by their inference gap (%)", *[f"data {note}"] * bool(note)]
    axes.set(xlabel="\n".join(words), ylabel="gap of a datum (nats)")
    drawn = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(drawn.values(), drawn, loc="lower left", bbox_to_anchor=(0, 1.13), ncols=4)
    return despined(axes)


@rc_context(STYLE)
def gaps_against_evidence(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """The inference gap of each datum against its log p(x): is the guide worst on unlikely data?

    Lines are running medians over a tenth of the data, if there are 20 or more; the legend states
    Spearman's rank correlation with its standard error, negative if unlikely data have the larger
    gaps.

    Args:
        rows: one for each split, up to four.
        axes: drawn on if given.

    Returns:
        The axes, in nats.

    Raises:
        ValueError: as in ``gaps``, or if there are more than four rows.

    Example:
        >>> row = GapRow("test", [-9.0, -8.0, -7.0], [-12.0, -10.0, -8.0])
        >>> gaps_against_evidence([row]).get_legend_handles_labels()[1]
        ['test: rank correlation −1.00']
    """
    rows = checked_rows(rows)
    if len(rows) > len(_SPLITS):
        raise ValueError(f"`rows` must be up to {len(_SPLITS)}; got {len(rows)}. Choose some.")
    axes = axes or fresh(3.6)
    totals = [row.log_evidence - row.guide for row in rows]
    for row, total, (colour, shape, dashes) in zip(rows, totals, _SPLITS, strict=False):
        marks = {"marker": shape, "s": np.clip(6000 / len(total), 4, 24)}
        marks["alpha"] = np.clip(8 / len(total) ** 0.5, 0.12, 0.4)
        marks |= {} if shape == "x" else {"linewidths": 0}
        axes.scatter(row.log_evidence, total, color=colour, **marks)
        label = f"{row.split}: rank correlation {_correlation(row.log_evidence, total)}"
        middle = _running(row.log_evidence, total, len(total) // 10)
        style = {"linestyle": dashes, "linewidth": 2.0, "zorder": 3, "path_effects": [_CASING]}
        axes.plot(*middle, color=colour, label=label, **style)
    _nat(axes)
    top, note = headroom(np.concatenate(totals), 1.5)
    axes.set_ylim(top=top)
    words = ["log p(x) of a datum (nats)", *[f"data {note}"] * bool(note)]
    axes.set(xlabel="\n".join(words), ylabel="inference gap (nats)")
    title = "a mark for each datum; lines: running medians over a tenth of the data"
    words = {"title": title, "title_fontsize": 9, "alignment": "left"}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, **words)
    return despined(axes)


def _nat(axes: Axes) -> None:
    """Lines at 0 and at 1 nat, the latter named at its right end."""
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.axhline(1.0, color="black", linewidth=1.0, linestyle=(0, (4, 2)))
    where = {"transform": axes.get_yaxis_transform(), "va": "center", "color": GREY}
    axes.text(1.005, 1.0, "1 nat", fontsize=9, **where)


def _ordered(axes: Axes, row: GapRow, total: np.ndarray, start: float) -> None:
    """One split's gaps, its data from ``start`` to ``start + 100``, and the share above 1 nat."""
    order = np.argsort(total)
    edges = start + 100 * np.linspace(0, 1, len(total) + 1)
    end = np.zeros(len(total))
    for _, gap, difference in rungs(row):
        if gap != GAIN:
            filled = {"color": GAPS[gap], "label": gap, "linewidth": 0, "fill": True}
            axes.stairs((end + difference)[order], edges, baseline=end[order], **filled)
            end = end + difference
    axes.stairs(total[order], edges, baseline=None, color="black", linewidth=1.0)
    text = f"{row.split} (n = {len(total)})\n{100 * np.mean(total > 1):.1f} % above 1 nat"
    where = {"transform": axes.get_xaxis_transform(), "va": "bottom", "fontsize": 9}
    axes.text(start, 1.02, text, **where)


def _running(x: np.ndarray, y: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Medians over ``width`` neighbours in the order of x; none of single data."""
    if width < 2:
        return x[:0], y[:0]
    order = np.argsort(x)
    windows = (np.lib.stride_tricks.sliding_window_view(v[order], width) for v in (x, y))
    middle_x, middle_y = (np.median(window, axis=-1) for window in windows)
    return middle_x, middle_y


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _correlation(x: np.ndarray, y: np.ndarray) -> str:
    """Spearman's rank correlation in words, with the standard error of Bonett and Wright (2000).

    "Sample Size Requirements for Estimating Pearson, Kendall and Spearman Correlations" gives it
    for Fisher's transform; times 1 - r^2 it is one of r.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "none, for all are equal"
    r, n = np.corrcoef(_ranks(x), _ranks(y))[0, 1], len(x)
    if n < 4:
        return number(r, ".2f")
    return f"{number(r, '.2f')} ± {(1 - r**2) * np.sqrt((1 + r**2 / 2) / (n - 3)):.2f}"
