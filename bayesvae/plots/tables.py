"""The picture of a model of tables: what it draws, beside the data, column by column."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.style import (
    BLUE,
    GREY,
    STYLE,
    Values,
    arrays_of,
    despined,
    multiples,
    names_of,
    number,
    rounded,
    shortened,
)

_MOST = 12
_NAMES = ("data", "draws")
_LINE = {"histtype": "step", "linewidth": 1.5}


@rc_context(STYLE)
def columns(data: Values, draws: Values, names: Sequence[str] = ()) -> Figure:
    """A model's draws over the data: the columns' histograms, or the plane if there are but two.

    Marginals say nothing of how columns hang together: look at two columns by themselves as well.

    Args:
        data: ``(N, D)``.
        draws: of the model, noise included, ``(M, D)``; N and M may differ.
        names: of the columns; their numbers from 1 if none.

    Returns:
        A figure with an axes for each of the first 12 columns, or one if D = 2.

    Raises:
        ValueError: on another shape, values that are not finite, or names of another number.

    Example:
        >>> import torch
        >>> figure = columns(torch.randn(100, 3), torch.randn(200, 3), ["age", "height", "weight"])
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['age', 'height', 'weight']
    """
    data, draws = _table("data", data), _table("draws", draws)
    count = data.shape[1]
    if draws.shape[1] != count:
        raise ValueError(
            f"`draws` must have the data's {count} columns; got {draws.shape[1]}. Draw whole rows."
        )
    names = [shortened(name) for name in names_of("names", names, count, "column ")]
    return _plane(data, draws, names) if count == 2 else _histograms(data, draws, names)


@rc_context(STYLE)
def reconstructed_columns(originals: Values, means: Values, names: Sequence[str] = ()) -> Figure:
    """Reconstructions of a table against its data, column by column: on the line they agree.

    The number is the share of a column's variance that the reconstruction explains; below 0 it
    does worse than the column's mean, and of a constant column there is none.

    Args:
        originals: ``(N, D)``.
        means: the likelihood's mean, given the guide's code of each row; same shape.
        names: of the columns; their numbers from 1 if none.

    Returns:
        A figure with an axes for each of the first 12 columns.

    Raises:
        ValueError: on another shape, values that are not finite, or names of another number.

    Example:
        >>> import torch
        >>> x = torch.randn(100, 3)
        >>> [axes.get_title(loc="left") for axes in reconstructed_columns(x, x).axes]
        ['1.00', '1.00', '1.00']
    """
    named = {"originals": originals, "means": means}
    x, mean = arrays_of(named, "Pass finite tables (N, D).", dims=(2,)).values()
    names = [shortened(name) for name in names_of("names", names, x.shape[1], "column ")]
    panels = multiples(min(len(names), _MOST), 4, 2.0, above=0.5)
    for j, axes in enumerate(panels):
        _agreement(axes, x[:, j], mean[:, j])
        axes.set_xlabel(names[j])
        axes.set_ylabel("" if j % 4 else "reconstruction")
    note = f"; the first {_MOST} of {len(names)} columns" if len(names) > _MOST else ""
    title = f"a dot for each datum; numbers: share of the variance explained{note}"
    panels[0].figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return panels[0].figure


def _agreement(axes: Axes, x: np.ndarray, mean: np.ndarray) -> None:
    low, high = np.quantile(x, (0.002, 0.998))
    axes.scatter(x, mean, s=np.clip(4000 / len(x), 1, 8), color=BLUE, alpha=0.5, linewidths=0)
    axes.axline((low, low), slope=1, color=GREY, linewidth=0.8)
    margin = 0.1 * (high - low) or _around(low)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.locator_params(nbins=3)
    if _constant(x):
        text = "constant"
        axes.set_xticks(x[:1], [rounded(x[0], 6)])
        axes.set_yticks(x[:1], [rounded(x[0], 6)])
    else:
        explained = 1 - ((x - mean) ** 2).sum() / ((x - x.mean()) ** 2).sum()
        text = number(explained, ".2f")
    axes.set_title(text, loc="left", fontsize=9, pad=2)
    despined(axes)


def _constant(x: np.ndarray) -> bool:
    """Whether values are the same, but for their rounding."""
    return bool(np.ptp(x) <= 1e-6 * abs(x).max())


def _around(value: float) -> float:
    """What is shown at either side of a constant."""
    return max(0.5, 0.05 * abs(value))


def _table(name: str, values: Values) -> np.ndarray:
    return arrays_of({name: values}, "Pass a finite table (N, D).", dims=(2,))[name]


def _plane(data: np.ndarray, draws: np.ndarray, names: Sequence[str]) -> Figure:
    """As many draws as data, so that the eye can compare how dense they are."""
    most = min(len(data), len(draws), 4000)
    low, high = np.quantile(data, (0.005, 0.995), axis=0)
    margin = 0.2 * (high - low) + 1e-6
    low, high = low - margin, high + margin
    panels = multiples(2, 2, 4.2, above=0)
    parts = ((data, GREY), (draws, BLUE))
    for axes, name, (rows, colour) in zip(panels, _NAMES, parts, strict=True):
        axes.scatter(*rows[:most].T, s=np.clip(8000 / most, 2, 12), color=colour, linewidths=0)
        beyond = ((rows < low) | (rows > high)).any(axis=1).mean()
        note = f", {100 * beyond:.0f} % beyond the axes" if beyond > 0.005 else ""
        axes.set(xlabel=names[0], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_title(f"{most} {name}{note}", loc="left", fontsize=11)
        despined(axes)
    panels[0].set_ylabel(names[1])
    return panels[0].figure


def _histograms(data: np.ndarray, draws: np.ndarray, names: Sequence[str]) -> Figure:
    panels = multiples(min(len(names), _MOST), 4, 1.8, above=0.5)
    for j, axes in enumerate(panels):
        _histogram(axes, data[:, j], draws[:, j])
        axes.set_xlabel(names[j])
    handles, labels = panels[0].get_legend_handles_labels()
    title = f"the first {_MOST} of {len(names)} columns" if len(names) > _MOST else None
    figure, words = panels[0].figure, {"title": title, "title_fontsize": 9, "alignment": "left"}
    figure.legend(handles, labels, loc="outside upper left", ncols=2, **words)
    return figure


def _histogram(axes: Axes, data: np.ndarray, draws: np.ndarray) -> None:
    """Over the data's range; whole numbers get a bin each."""
    bins, whole = _bins(data)
    looks = {"data": {"color": "#BBBBBB"}, "draws of the model": {"color": BLUE, **_LINE}}
    for values, (name, look) in zip((data, draws), looks.items(), strict=True):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, label=name, **look)
    shares = [100 * ((values < bins[0]) | (values > bins[-1])).mean() for values in (data, draws)]
    notes = [
        f"{share:.0f} % of {name}"
        for share, name in zip(shares, _NAMES, strict=True)
        if share >= 0.5
    ]
    if notes:
        axes.set_title(f"beyond: {', '.join(notes)}", fontsize=8, color=GREY, pad=2)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4, integer=whole)
    if _constant(data):
        axes.set_xticks(data[:1], [rounded(data[0], 6)])
    despined(axes, "left")


def _bins(data: np.ndarray) -> tuple[np.ndarray, bool]:
    """Edges of bins, around all but a hundredth of the data, and whether for whole numbers."""
    low, high = data.min(), data.max()
    if (data == data.round()).all() and high - low <= 30:
        return np.arange(low - 1.5, high + 2), True
    middle = np.quantile(data, (0.005, 0.995))
    margin = _around(low) if _constant(data) else 0.25 * np.ptp(middle) or _around(low)
    return np.linspace(middle[0] - margin, middle[1] + margin, 41), False
