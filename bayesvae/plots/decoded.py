"""Pictures of a decoder: the likelihood's mean over a plane, or along a path, of latents."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bayesvae.plots.images import events_of, range_of, range_words, tile
from bayesvae.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    WIDTH,
    Values,
    coordinates,
    despined,
    fresh,
    names_of,
    shortened,
    tabled,
    written,
)

_GAP = 0.35
_MOST = 40
_DATUM = {"marker": "o", "color": ORANGE, "linestyle": "", "markersize": 3, "label": "datum"}


@rc_context(STYLE)
def decoded_grid(means: Values, first: Values, second: Values) -> Figure:
    """The plane of two latents as the decoder sees it: at each point the mean of p(x | z).

    Args:
        means: of the likelihood, for ``z = (first[c], second[r])``: ``(R, C, *event)`` with images
            ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)`` as events.
        first: the values of the first latent ``(C,)``, rightwards.
        second: those of the second ``(R,)``, upwards.

    Returns:
        A figure of one axes with one image, the mosaic.

    Raises:
        ValueError: on another shape, vectors as events, or values that are not finite.

    Example:
        >>> import torch
        >>> grid = torch.linspace(-2, 2, 5)
        >>> axes = decoded_grid(torch.rand(5, 5, 8, 8), grid, grid).axes[0]
        >>> axes.images[0].get_array().shape
        (40, 40)
    """
    (means,) = events_of("R, C", means=means)
    if means.ndim == 3:
        raise ValueError(
            f"decoded_grid needs images as events; got vectors, shape {means.shape}. Reshape what "
            "is a flattened image, or show vectors with `traversals`."
        )
    lines = _lines(means, first, second)
    rows, columns, height, width = means.shape[:4]
    mosaic = means[::-1].swapaxes(1, 2).reshape(rows * height, columns * width, *means.shape[4:])
    axes, scale = fresh(1.0), range_of(means)
    tile(axes, mosaic, scale, (-0.5, columns - 0.5, -0.5, rows - 0.5))
    for axis, line, name in zip((axes.xaxis, axes.yaxis), lines, ("z1", "z2"), strict=True):
        axis.set_ticks(*_ticks(line))
        axis.set_label_text(name)
    between = {"colors": "white", "linewidths": 0.6}
    axes.vlines(np.arange(columns - 1) + 0.5, -0.5, rows - 0.5, **between)
    axes.hlines(np.arange(rows - 1) + 0.5, -0.5, columns - 0.5, **between)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5), aspect=height / width)
    axes.set_title(range_words(scale, ", "), loc="left", color=GREY, fontsize=9)
    shape = rows * height / (columns * width)
    side = min(WIDTH, 7.0 / shape + 0.8)
    axes.figure.set_size_inches(side, (side - 0.8) * shape + 0.8)
    return despined(axes, "left", "bottom").figure


@rc_context(STYLE)
def interpolations(
    means: Values, originals: Values | None = None, *, dimensions: Sequence[str] = ()
) -> Figure:
    """What lies between two data: means decoded along the straight line between their codes.

    Args:
        means: ``(n, steps, *event)``, a row for each pair of data; images of the shapes that
            ``decoded_grid`` takes, or vectors ``(D,)``, which become a small curve for each
            dimension.
        originals: the two data of each row ``(n, 2, *event)``, shown at its ends.
        dimensions: names of a vector's entries; their numbers from 1 if none.

    Returns:
        A figure of one axes.

    Raises:
        ValueError: on another shape, vectors of more than 40 entries, values that are not finite.

    Example:
        >>> import torch
        >>> figure = interpolations(torch.rand(3, 7, 8, 8), torch.rand(3, 2, 8, 8))
        >>> len(figure.axes[0].images)
        27
    """
    (means,) = events_of("n, steps", means=means)
    ends = means[:, :0] if originals is None else _ends(originals, means)
    along = np.linspace(0, 1, means.shape[1])
    label = "position on the straight line between two codes"
    if means.ndim == 3:
        names = names_of("names", None, len(means), "pair ")
        return _curves(means, ends, along, label, names, dimensions)
    return _images(means, ends, along, label, [""] * len(means))


@rc_context(STYLE)
def traversals(
    means: Values,
    values: Values,
    names: Sequence[str] | None = None,
    *,
    label: str = "value of the latent",
    dimensions: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """What each latent does: means decoded as it alone is varied, a row for each.

    Args:
        means: ``(d, steps, *event)``, of the events that ``interpolations`` takes.
        values: of the latent that is varied ``(steps,)``.
        names: of the rows; "z1", "z2", ... if None. A latent's KL belongs there: one of 0 nats
            changes nothing.
        label: what the values are.
        dimensions: names of a vector's entries; their numbers from 1 if none.
        note: written small below, such as what the rows are sorted by.

    Returns:
        A figure of one axes.

    Raises:
        ValueError: as ``interpolations`` does, or if names or values are not as many.

    Example:
        >>> import torch
        >>> axes = traversals(torch.rand(2, 5, 8, 8), torch.linspace(-2, 2, 5)).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['z1', 'z2']
    """
    (means,) = events_of("d, steps", means=means)
    along = coordinates("values", values)
    if len(along) != means.shape[1]:
        raise ValueError(
            f"`values` must be {means.shape[1]}, a value for each step; got {len(along)}. Means "
            "are (d, steps, *event)."
        )
    names = names_of("names", names, len(means), "z")
    draw = _images
    if means.ndim == 3:
        draw = functools.partial(_curves, dimensions=dimensions)
    figure = draw(means, means[:, :0], along, label, names)
    if note:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.25)
        figure.supxlabel(note, x=0.01, ha="left", color=GREY, fontsize=9)
    return figure


def _ticks(line: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Where round values of a latent lie among the columns of the mosaic; of few, each its own."""
    values = line
    if len(line) > 5:
        values = MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(line[0], line[-1])
        values = values[(values >= line[0]) & (values <= line[-1])]
    return np.interp(values, line, np.arange(len(line))), written(values)


def _lines(means: np.ndarray, first: Values, second: Values) -> list[np.ndarray]:
    lines = [coordinates("first", first), coordinates("second", second)]
    if means.shape[:2] != (len(lines[1]), len(lines[0])):
        raise ValueError(
            f"`means` must be (R, C, *event) for {len(lines[1])} values of `second` and "
            f"{len(lines[0])} of `first`; got shape {means.shape}. Is it (C, R)?"
        )
    return lines


def _ends(originals: Values, means: np.ndarray) -> np.ndarray:
    """The originals ``(n, 2, *event)`` of means ``(n, steps, *event)``."""
    (ends,) = events_of("n, 2", originals=originals)
    wanted = (len(means), 2, *means.shape[2:])
    if ends.shape != wanted:
        raise ValueError(
            f"`originals` must be two data for each row of `means`, {wanted}; got {ends.shape}. "
            "Pass the data whose codes are the ends of the paths."
        )
    return ends


def _images(
    means: np.ndarray, ends: np.ndarray, along: np.ndarray, label: str, names: Sequence[str]
) -> Figure:
    """Images in rows; between their two ends, with space, if there are any."""
    left = 1 + _GAP if ends.size else 0.0
    total = means.shape[1] + 2 * left
    places = [*(left + np.arange(means.shape[1])), *[0.0, total - 1][: ends.shape[1]]]
    axes, scale = fresh(1.0), range_of(means, ends)
    for i, row in enumerate(np.concatenate([means, ends], axis=1)):
        for image, start in zip(row, places, strict=True):
            tile(axes, image, scale, (start + 0.03, start + 0.97, i + 0.97, i + 0.03))
    words = [*written(along), *["datum"] * ends.shape[1]]
    _headed(axes, [place + 0.5 for place in places], words, label)
    tabled(axes, {i + 0.5: name for i, name in enumerate(names)})
    scale_words = range_words(scale, ", ")
    axes.text(left, len(means) + 0.08, scale_words, va="top", color=GREY, fontsize=9)
    aspect = means.shape[2] / means.shape[3]
    margin = 0.2 + 0.09 * max(map(len, names))
    cell = min(1.1, (WIDTH - margin) / total)
    axes.set(xlim=(0, total), ylim=(len(means), 0), aspect=aspect)
    height = len(means) * cell * aspect + 0.6 + 0.25 * bool(scale_words)
    axes.figure.set_size_inches(margin + total * cell, height)
    return despined(axes, "left", "bottom").figure


def _headed(axes: Axes, places: Sequence[float], words: Sequence[str], label: str) -> None:
    """Texts above columns; upright, in a higher figure, if they are long."""
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    longest = max(map(len, words))
    upright = longest > max(70 / len(words), 5)
    axes.set_xticks(places, words, rotation=90 if upright else 0)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(label)
    if upright:
        width, height = axes.figure.get_size_inches()
        axes.figure.set_size_inches(width, height + 0.085 * longest)


def _curves(
    means: np.ndarray,
    ends: np.ndarray,
    along: np.ndarray,
    label: str,
    names: Sequence[str],
    dimensions: Sequence[str],
) -> Figure:
    """A small curve for each row and dimension; a dimension has one scale in all rows."""
    rows, _, columns = means.shape
    if columns > _MOST:
        raise ValueError(
            f"Vectors must have at most {_MOST} entries to be drawn; got {columns}. Reshape what "
            "is a flattened image, x.unflatten(-1, (28, 28)), or choose entries."
        )
    heads = [shortened(name) for name in names_of("dimensions", dimensions, columns, "")]
    axes = fresh(1.6 + 0.5 * rows)
    handles = _cells(axes, means, ends, (along - along[0]) / (along[-1] - along[0]))
    axes.hlines(np.arange(rows + 1), 0, columns, color="0.85", linewidth=0.8)
    axes.vlines(np.arange(columns + 1), 0, rows, color="0.85", linewidth=0.8)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    _headed(axes, np.arange(columns) + 0.5, heads, "" if len(dimensions) else "entry of x")
    tabled(axes, {i + 0.5: name for i, name in enumerate(names)})
    title = f"in a cell, rightwards: {label}, {' to '.join(written(along[[0, -1]]))}; "
    text = {"title": title + "upwards: the range below the column", "title_fontsize": 9}
    axes.figure.legend(
        handles=handles, loc="outside upper left", ncols=2, alignment="left", **text
    )
    return despined(axes, "left", "bottom").figure


def _cells(axes: Axes, means: np.ndarray, ends: np.ndarray, place: np.ndarray) -> list[Line2D]:
    """Draws the curves, the dots at their ends and the ranges; what to put into a legend."""
    rows, _, columns = means.shape
    both = np.concatenate([means, ends], axis=1)
    low, high = both.min(axis=(0, 1)), both.max(axis=(0, 1))
    span = np.maximum(high - low, 1e-6 * np.maximum(abs(high), 1e-6))
    heights = np.arange(rows)[:, None, None] + 0.88 - 0.76 * (both - low) / span
    handles: list[Line2D] = []
    for i, j in np.ndindex(rows, columns):
        path, data = np.split(heights[i, :, j], [len(place)])
        across = j + 0.1 + 0.8 * place
        handles = axes.plot(across, path, color=BLUE, label="decoded mean")
        handles += axes.plot(across[[0, -1]], data, **_DATUM) if data.size else []
    for j, (bottom, top) in enumerate(zip(low, high, strict=True)):
        turned = {"rotation": 90} if columns > 14 else {}
        first, last = written([bottom, top], 3)
        words = f"{first} …{' ' if turned else chr(10)}{last}" if first != last else first
        axes.text(j + 0.5, rows + 0.1, words, ha="center", va="top", fontsize=8, **turned)
    return handles
