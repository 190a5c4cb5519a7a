"""Pictures of a decoder: the likelihood's mean over a plane, or along a path, of latents."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.images import events_of, range_of, range_words, tile
from bayesvae.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    WIDTH,
    Values,
    arrays_of,
    despined,
    fresh,
    tabled,
)

_GAP = 0.35
_MOST = 40
_DATUM = {"marker": "o", "color": ORANGE, "linestyle": "", "markersize": 4}


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
    ticks = _coordinates(means, second, first)
    rows, columns, height, width = means.shape[:4]
    mosaic = means[::-1].swapaxes(1, 2).reshape(rows * height, columns * width, *means.shape[4:])
    axes, scale = fresh(1.0), range_of(means)
    shape = rows * height / (columns * width)
    tile(axes, mosaic, scale, (-0.5, columns - 0.5, -0.5, rows - 0.5))
    for axis, values, name in zip((axes.yaxis, axes.xaxis), ticks, "21", strict=True):
        some = np.unique(np.linspace(0, len(values) - 1, min(len(values), 9)).round().astype(int))
        axis.set_ticks(some, [_value(values[i]) for i in some])
        axis.set_label_text(f"z{name}")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5), aspect=shape * columns / rows)
    axes.set_title(range_words(scale, ", "), loc="left", color=GREY, fontsize=9)
    side = min(WIDTH, 7.0 / shape + 0.8)
    axes.figure.set_size_inches(side, (side - 0.8) * shape + 0.8)
    return despined(axes, "left", "bottom").figure


@rc_context(STYLE)
def interpolations(means: Values, originals: Values | None = None) -> Figure:
    """What lies between two data: means decoded along the straight line between their codes.

    Args:
        means: ``(n, steps, *event)``, a row for each pair of data; images of the shapes that
            ``decoded_grid`` takes, or vectors ``(D,)``, which become a small curve for each
            dimension.
        originals: the two data of each row ``(n, 2, *event)``, shown at its ends.

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
    along = np.linspace(0, 1, means.shape[1])
    label = "position on the straight line between two codes"
    ends = None
    if originals is not None:
        (ends,) = events_of("n, 2", originals=originals)
        wanted = (len(means), 2, *means.shape[2:])
        if ends.shape != wanted:
            raise ValueError(
                f"`originals` must have two data for each row of `means`, {wanted}; got "
                f"{ends.shape}. Pass the data whose codes are the ends."
            )
    names = [f"pair {i + 1}" for i in range(len(means))]
    if means.ndim == 3:
        return _curves(means, along, label, names, ends)
    return _rows(means, along, label, [""] * len(means), ends)


@rc_context(STYLE)
def traversals(means: Values, values: Values, names: Sequence[str] | None = None) -> Figure:
    """What each latent does: means decoded as it alone is varied, a row for each.

    Args:
        means: ``(d, steps, *event)``, of the events that ``interpolations`` takes.
        values: of the latent that is varied ``(steps,)``.
        names: of the rows; "z1", "z2", ... if None. A latent's KL belongs there: one of 0 nats
            changes nothing.

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
    values = arrays_of({"values": values}, "Pass one value (steps,) for each column.")["values"]
    names = [f"z{i + 1}" for i in range(len(means))] if names is None else list(names)
    for name, given, count in (("values", values, means.shape[1]), ("names", names, len(means))):
        if len(given) != count:
            raise ValueError(
                f"`{name}` must be {count} for means of shape {means.shape}; got {len(given)}. "
                "Means are (d, steps, *event)."
            )
    draw = _curves if means.ndim == 3 else _rows
    return draw(means, values, "value of the latent", names, None)


def _coordinates(means: np.ndarray, second: Values, first: Values) -> list[np.ndarray]:
    found = []
    for name, given, count in (
        ("second", second, means.shape[0]),
        ("first", first, means.shape[1]),
    ):
        values = arrays_of({name: given}, "Pass the coordinates of the grid.")[name]
        if len(values) != count or (np.diff(values) <= 0).any():
            raise ValueError(
                f"`{name}` must be {count} rising coordinates for means of shape {means.shape}; "
                f"got {len(values)}. Means are (R, C, *event): `second` downwards, `first` across."
            )
        found.append(values)
    return found


def _value(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")


def _rows(
    means: np.ndarray, along: np.ndarray, label: str, names: Sequence[str], ends: np.ndarray | None
) -> Figure:
    """Images in rows; between the two ends, with space, if there are any."""
    left = 0.0 if ends is None else 1 + _GAP
    cells, total = [means], means.shape[1] + 2 * left
    places = [left + np.arange(means.shape[1])]
    if ends is not None:
        cells, places = [*cells, ends], [*places, np.array([0, total - 1])]
    axes, scale = fresh(1.0), range_of(*cells)
    for block, starts in zip(cells, places, strict=True):
        for i, row in enumerate(block):
            for image, start in zip(row, starts, strict=True):
                tile(axes, image, scale, (start + 0.03, start + 0.97, i + 0.97, i + 0.03))
    marks = {x + 0.5: _value(v) for x, v in zip(places[0], along, strict=True)}
    marks |= {} if ends is None else {0.5: "datum", total - 0.5: "datum"}
    _headed(axes, marks, label)
    tabled(axes, {i + 0.5: name for i, name in enumerate(names)})
    aspect = means.shape[2] / means.shape[3]
    margin = 0.2 + 0.09 * max(map(len, names))
    cell = min(1.1, (WIDTH - margin) / total)
    axes.set(xlim=(0, total), ylim=(len(means), 0), aspect=aspect)
    axes.figure.set_size_inches(margin + total * cell, len(means) * cell * aspect + 0.8)
    return despined(axes, "left", "bottom").figure


def _headed(axes: Axes, marks: dict[float, str], label: str) -> None:
    """Texts above the columns."""
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(axis="x", length=0)
    axes.set_xticks(list(marks), list(marks.values()))
    axes.set_xlabel(label)


def _curves(
    means: np.ndarray, along: np.ndarray, label: str, names: Sequence[str], ends: np.ndarray | None
) -> Figure:
    """A small curve for each row and dimension; a dimension has one scale in all rows."""
    rows, _, columns = means.shape
    if columns > _MOST:
        raise ValueError(
            f"Vectors must have at most {_MOST} entries to be drawn; got {columns}. Reshape "
            "flattened images, x.unflatten(-1, (28, 28)), or choose columns."
        )
    every = np.concatenate([means, *([] if ends is None else [ends])], axis=1)
    low, high = every.min(axis=(0, 1)), every.max(axis=(0, 1))
    span = np.maximum(high - low, 1e-6 * np.maximum(np.abs(high), 1e-6))
    axes = fresh(2.0 + 0.5 * rows)
    across = 0.1 + 0.8 * (along - along.min()) / max(np.ptp(along), 1e-12)
    heights = np.arange(rows)[:, None, None] + 0.9 - 0.8 * (every - low) / span
    for row in heights:
        for j, line in enumerate(row.T):
            axes.plot(j + across, line[: len(along)], color=BLUE)
            axes.plot(j + across[[0, -1]][: len(line) - len(along)], line[len(along) :], **_DATUM)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.grid()
    _headed(axes, {j + 0.5: str(j + 1) for j in range(columns)}, "dimension of x")
    for j in range(columns):
        words = f"{_value(low[j])} … {_value(high[j])}"
        axes.text(j + 0.5, rows + 0.1, words, rotation=90, ha="center", va="top", fontsize=9)
    tabled(axes, {i + 0.5: name for i, name in enumerate(names)})
    return despined(axes, "left", "bottom").figure
