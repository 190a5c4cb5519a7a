"""Pictures of data: samples of a model, reconstructions beside originals."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.style import (
    GREY,
    STYLE,
    WIDTH,
    Values,
    arrays_of,
    despined,
    fresh,
    rounded,
    tabled,
    written,
)

_LABEL = 1.3

Range: TypeAlias = tuple[float, float]


def drawable(event: Sequence[int]) -> bool:
    """Whether ``samples`` and ``reconstructions`` can draw data of a shape.

    Args:
        event: the shape of one datum.

    Returns:
        True of images ``(H, W)``, ``(1, H, W)``, ``(3, H, W)`` and vectors ``(D,)``.

    Example:
        >>> drawable((3, 8, 8)), drawable((784,)), drawable((4, 8, 8)), drawable(())
        (True, True, False, False)
    """
    image = len(event) in (1, 2) or (len(event) == 3 and event[0] in (1, 3))
    return image and min(event) > 0


@rc_context(STYLE)
def samples(
    means: Values, draws: Values | None = None, columns: int = 10, *, noise: bool = False
) -> Figure:
    """Blocks of a model's means and of the data drawn around them.

    Datum ``i`` has the same place in every block. Means and draws share a grey scale that clips:
    0 to 1 if the means lie there, else the middle 98 % of the means' values, written at the left.
    Vectors become heat-maps with a row for each datum, where ``columns`` shows a table better; one
    that is a flattened image is yours to reshape: ``x.unflatten(-1, (28, 28))``.

    Args:
        means: ``(n, H, W)``, ``(n, 1, H, W)``, ``(n, 3, H, W)`` in colour, or vectors ``(n, D)``.
        draws: of the same shape.
        columns: images in a row.
        noise: also show ``draws - means``, 0 as mid-grey and at the contrast of the means, beside
            which it is then as large as it looks. For a Normal likelihood: its means are smooth,
            its noise has no structure. A Bernoulli's draws say as much.

    Returns:
        A figure of one axes, with the names of the blocks at the left.

    Raises:
        ValueError: on another shape, values that are not finite, or noise without draws.

    Example:
        >>> import torch
        >>> means = torch.rand(20, 1, 8, 8)
        >>> axes = samples(means, torch.bernoulli(means)).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['mean', 'draw']
    """
    if draws is None:
        if noise:
            raise ValueError("noise=True needs `draws`; got None. Pass draws, or noise=False.")
        (mean,) = events_of("n", means=means)
        scale = range_of(mean, share=0.98)
        return _grid([("mean", mean, scale)], columns, note=_clipping(scale, mean))
    mean, draw = events_of("n", means=means, draws=draws)
    scale, rest = range_of(mean, share=0.98), draw - mean
    note = _clipping(scale, draw)
    if not noise:
        return _grid([("mean", mean, scale), ("draw", draw, scale)], columns, note=note)
    half = (scale[1] - scale[0]) / 2
    noisy = (f"+ noise\nstd {rounded(np.sqrt(np.mean(rest**2)))}", rest, (-half, half))
    return _grid([("mean", mean, scale), noisy, ("= draw", draw, scale)], columns, note=note)


@rc_context(STYLE)
def reconstructions(originals: Values, means: Values, columns: int = 10) -> Figure:
    """Data above their reconstructions, row by row, on one scale as in ``samples``.

    Args:
        originals: images or vectors, of a shape that ``samples`` takes.
        means: the likelihood's mean, given the guide's code of each original; same shape.
        columns: images in a row.

    Returns:
        A figure of one axes, with the names of the rows at the left.

    Raises:
        ValueError: on another shape, or values that are not finite.

    Example:
        >>> import torch
        >>> x = torch.rand(15, 8, 8)
        >>> len(reconstructions(x, x.sqrt()).axes[0].images)
        30
    """
    x, mean = events_of("n", originals=originals, means=means)
    step = len(x) if x.ndim == 2 else max(columns, 1)
    blocks = [
        (label, values[start : start + step], range_of(x, mean))
        for start in range(0, len(x), step)
        for label, values in (("original", x), ("reconstruction", mean))
    ]
    return _grid(blocks, columns, group=2)


def events_of(front: str, **named: Values) -> list[np.ndarray]:
    """Arrays ``(*front, H, W)``, ``(*front, H, W, 3)`` or ``(*front, D)``."""
    kinds = f"images ({front}, H, W), ({front}, 1, H, W), ({front}, 3, H, W) or "
    kinds += f"vectors ({front}, D)"
    lead = front.count(",") + 1
    dims = (lead + 1, lead + 2, lead + 3)
    arrays = list(arrays_of(named, f"Pass finite {kinds}.", dims=dims).values())
    shape = arrays[0].shape
    if len(shape) < dims[-1]:
        return arrays
    if shape[lead] not in (1, 3):
        raise ValueError(
            f"`{next(iter(named))}` must be {kinds}; got {shape}. Is ({front}) in front?"
        )
    return [np.moveaxis(a, lead, -1) if shape[lead] == 3 else a.squeeze(lead) for a in arrays]


def range_of(first: np.ndarray, *others: np.ndarray, share: float = 0.99) -> Range:
    """From 0 to 1 if the first array lies there, else the middle share of all values."""
    if first.min() >= 0 and first.max() <= 1:
        return 0.0, 1.0
    values, tail = np.concatenate([a.ravel() for a in (first, *others)]), (1 - share) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return low, max(high, low + 1e-6)


def _clipping(scale: Range, values: np.ndarray) -> str:
    """What a grey scale is, if there are values beyond it."""
    low, high = scale
    if low <= values.min() and values.max() <= high:
        return ""
    what = "0 to 1" if scale == (0, 1) else "the middle 98 % of the means' values"
    return f"from black to white: {what}; what lies beyond is clipped"


def range_words(scale: Range, separator: str) -> str:
    """What is black and what white, unless that is 0 and 1."""
    ends = zip(written(scale), ("black", "white"), strict=True)
    words = separator.join(f"{end} ({name})" for end, name in ends)
    return "" if scale == (0, 1) else words


def tile(
    axes: Axes, image: np.ndarray, scale: Range, box: tuple[float, float, float, float]
) -> None:
    """Draws an image ``(H, W)`` or ``(H, W, 3)`` into a box (left, right, bottom, top)."""
    low, high = scale
    shown = np.clip((image - low) / (high - low), 0, 1) if image.ndim == 3 else image
    axes.imshow(shown, "gray", vmin=low, vmax=high, extent=box)


def _grid(
    blocks: Sequence[tuple[str, np.ndarray, Range]], columns: int, group: int = 1, note: str = ""
) -> Figure:
    """Named blocks of values on a scale, downwards, with space after each ``group`` of them."""
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1; got {columns}. The default is 10.")
    first = blocks[0][1]
    vectors = first.ndim == 2
    columns = 1 if vectors else min(columns, len(first))
    cell = WIDTH - _LABEL if vectors else min(1.5, (WIDTH - _LABEL) / columns)
    aspect = 0.25 if vectors else first.shape[1] / first.shape[2]
    axes, ticks, top = fresh(1.0), {}, -0.2
    for i, (name, values, scale) in enumerate(blocks):
        top += 0.2 * (i % group == 0)
        for j, image in enumerate(values[None] if vectors else values):
            row, column = divmod(j, columns)
            box = (column + 0.03, column + 0.97, top + row + 0.97, top + row + 0.03)
            tile(axes, image, scale, box)
        ticks[top + (row + 1) / 2] = f"{name}\n{range_words(scale, chr(10))}".strip()
        top += row + 1
    axes.set(xlim=(0, columns), ylim=(top, 0), xticks=[], aspect=aspect)
    if vectors and first.shape[1] <= 30:
        entries = np.arange(first.shape[1])
        axes.set_xticks((entries + 0.5) / len(entries) * 0.94 + 0.03, entries + 1)
        axes.tick_params(axis="x", length=0)
    below = [text for text in ("entry (a row for each datum)" * vectors, note) if text]
    axes.set_xlabel("\n".join(below), color=GREY, fontsize=9)
    height = top * cell * aspect + 0.2 * vectors + 0.2 * len(below)
    axes.figure.set_size_inches(_LABEL + columns * cell, height)
    tabled(axes, ticks)
    return despined(axes, "left", "bottom").figure
