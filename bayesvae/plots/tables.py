"""The picture of a model of tables: what it draws, beside the data, column by column."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.style import BLUE, GREY, STYLE, WIDTH, Values, arrays_of, despined

_MOST, _ACROSS = 12, 4
_DATA, _DRAWS = "#BBBBBB", BLUE


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
    arrays = [_table(name, values) for name, values in (("data", data), ("draws", draws))]
    data, draws = arrays
    count = data.shape[1]
    if draws.shape[1] != count:
        raise ValueError(
            f"`draws` must have the data's {count} columns; got {draws.shape[1]}. Draw whole rows."
        )
    names = [f"column {j + 1}" for j in range(count)] if not len(names) else list(names)
    if len(names) != count:
        raise ValueError(f"`names` must be one for each of {count} columns; got {len(names)}.")
    return _plane(data, draws, names) if count == 2 else _histograms(data, draws, names)


def _table(name: str, values: Values) -> np.ndarray:
    return arrays_of({name: values}, "Pass a finite table (N, D).", dims=(2,))[name]


def _plane(data: np.ndarray, draws: np.ndarray, names: Sequence[str]) -> Figure:
    """As many draws as data at most, so that density compares by eye."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    most = min(len(data), len(draws), 4000)
    low, high = np.quantile(data, (0.005, 0.995), axis=0)
    low, high = low - 0.2 * (high - low) - 1e-6, high + 0.2 * (high - low) + 1e-6
    for axes, (label, rows, colour) in zip(
        panels, (("data", data, GREY), ("draws", draws, _DRAWS)), strict=True
    ):
        axes.scatter(*rows[:most].T, s=np.clip(8000 / most, 2, 12), color=colour, linewidths=0)
        axes.set(xlabel=names[0], title=f"{most} {label}")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        despined(axes)
    panels[0].set_ylabel(names[1])
    return figure


def _histograms(data: np.ndarray, draws: np.ndarray, names: Sequence[str]) -> Figure:
    shown = min(len(names), _MOST)
    across = min(_ACROSS, shown)
    rows = -(-shown // across)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, across, squeeze=False).ravel()
    for axes in panels[shown:]:
        axes.remove()
    for j, axes in enumerate(panels[:shown]):
        _histogram(axes, data[:, j], draws[:, j])
        axes.set_xlabel(names[j])
    handles, labels = panels[0].get_legend_handles_labels()
    left_out = len(names) - shown
    title = f"the first {shown} of {len(names)} columns" if left_out else None
    figure.legend(handles, labels, loc="outside upper left", ncols=2, title=title)
    return figure


def _histogram(axes: Axes, data: np.ndarray, draws: np.ndarray) -> None:
    """Over the data's range and a quarter more, counting draws beyond; whole numbers get a bin."""
    low, high = data.min(), data.max()
    if (data == data.round()).all() and high - low <= 30:
        bins = np.arange(low - 1.5, high + 2)
    else:
        bins = np.linspace(low - 0.15 * (high - low), high + 0.15 * (high - low), 40)
    width = np.diff(bins)[0]
    weights = [np.full(len(values), 1 / len(values) / width) for values in (data, draws)]
    axes.hist(data, bins, weights=weights[0], color=_DATA, label="data")
    axes.hist(
        draws,
        bins,
        weights=weights[1],
        color=_DRAWS,
        histtype="step",
        linewidth=1.5,
        label="draws",
    )
    beyond = ((draws < bins[0]) | (draws > bins[-1])).mean()
    if beyond >= 0.005:
        axes.set_title(f"{beyond:.0%} of draws beyond", loc="right", fontsize=8, color=GREY)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    despined(axes, "left")
