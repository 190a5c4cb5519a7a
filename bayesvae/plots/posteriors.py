"""The picture of what a guide makes of the true posterior, for two latents.

On a grid p(x, z) becomes p(z | x) by division with its own sum, and the inference gap of a datum
is a sum over cells, each of area a:

    KL(q || p(z | x))  =  sum_a q(z_a) a { log q(z_a) - log p(z_a | x) }
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesvae.plots.density import levels
from bayesvae.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    ORANGE,
    PURPLE,
    STYLE,
    WIDTH,
    Values,
    arrays_of,
)

# As in the picture of the gaps: what the guide loses is orange, its own family's optimum blue.
_LINES = tuple(zip((ORANGE, BLUE, GREEN, PURPLE), DASHES, strict=True))
_ACROSS = 4
_MASSES = (0.99, 0.9, 0.7, 0.5, 0.3, 0.1)


class _Grid(NamedTuple):
    """Coordinates ``(C,)`` and ``(R,)``, and the log of the cells' areas ``(R, C)``."""

    first: np.ndarray
    second: np.ndarray
    log_area: np.ndarray


@rc_context(STYLE)
def posteriors(
    first: Values,
    second: Values,
    log_joint: Values,
    log_guides: Mapping[str, Values],
    *,
    titles: Sequence[str] | None = None,
) -> Figure:
    """The true posterior of each datum in grey, under the contours of its approximations.

    Lines hold 50 % and 90 % of an approximation; its number is KL(q || p(z | x)) in nats, the gap
    between log p(x) and the bound of this very datum. All panels are of one size, each around its
    datum's mass. What an approximation loses beside the grid is said in red.

    Args:
        first: coordinates of the first latent ``(C,)``, rising; a grid of 200 by 200 is good.
        second: those of the second ``(R,)``.
        log_joint: log p(x_n, z) ``(n, R, C)`` at ``z = (first[c], second[r])``, in nats, up to a
            constant for each datum.
        log_guides: log q(z | x_n) ``(n, R, C)`` by name, the guide's first, then that of its own
            family's optimum: up to four.
        titles: of the panels.

    Returns:
        A figure with an axes for each datum.

    Raises:
        ValueError: on shapes that do not fit, a grid that does not rise, values that are not
            finite, or more than four guides.

    Example:
        >>> import torch
        >>> line = torch.linspace(-4, 4, 81)
        >>> log_p = -0.5 * (line[:, None] ** 2 + line**2)[None]
        >>> log_q = log_p - torch.log(torch.tensor(2 * torch.pi))
        >>> figure = posteriors(line, line, log_p, {"encoder": log_q})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['encoder 0.00']
    """
    grid, joint, guides = _checked(first, second, log_joint, log_guides)
    titles = [f"datum {i + 1}" for i in range(len(joint))] if titles is None else list(titles)
    if len(titles) != len(joint):
        raise ValueError(f"`titles` must be one for each of {len(joint)} data; got {len(titles)}.")
    log_posterior = joint - _log_sum(joint + grid.log_area)
    rows = -(-len(joint) // _ACROSS)
    columns = min(_ACROSS, len(joint))
    figure = Figure(layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    boxes = _windows(grid, [log_posterior, *guides.values()])
    for i, axes in enumerate(panels):
        if i >= len(joint):
            axes.remove()
            continue
        _panel(axes, grid, log_posterior[i], {name: q[i] for name, q in guides.items()})
        axes.set_title(titles[i], loc="left", pad=6 + 13 * len(guides))
        axes.set(xlim=boxes[i][0], ylim=boxes[i][1])
        axes.locator_params(nbins=3)
    width, height = np.ptp(boxes[0], axis=1)
    side = WIDTH / max(columns, 2.5)
    each = min(side * height / width, 1.5 * side) + 0.5 + 0.2 * len(guides)
    figure.set_size_inches(WIDTH, rows * each + 0.8)
    figure.supxlabel("z1", fontsize=10)
    figure.supylabel("z2", fontsize=10)
    _legend(figure, list(guides))
    return figure


def _checked(
    first: Values, second: Values, log_joint: Values, log_guides: Mapping[str, Values]
) -> tuple[_Grid, np.ndarray, dict[str, np.ndarray]]:
    lines = []
    for name, values in (("first", first), ("second", second)):
        line = arrays_of({name: values}, "Pass the coordinates of the grid, rising.")[name]
        if len(line) < 3 or (np.diff(line) <= 0).any():
            raise ValueError(
                f"`{name}` must be three or more rising coordinates; got {len(line)} values. "
                "Use torch.linspace."
            )
        lines.append(line)
    if len(log_guides) > len(_LINES):
        raise ValueError(f"`log_guides` must be at most {len(_LINES)}; got {len(log_guides)}.")
    named = {"log_joint": log_joint}
    named |= {f"log_guides['{name}']": values for name, values in log_guides.items()}
    shape = (len(lines[1]), len(lines[0]))
    remedy = f"Pass finite log-densities (n, {shape[0]}, {shape[1]}): n data, `second`, `first`."
    joint, *others = arrays_of(named, remedy, dims=(3,)).values()
    if joint.shape[1:] != shape:
        raise ValueError(f"`log_joint` must fit the grid; got shape {joint.shape}. {remedy}")
    area = np.log(np.outer(np.gradient(lines[1]), np.gradient(lines[0])))
    return _Grid(*lines, area), joint, dict(zip(log_guides, others, strict=True))


def _log_sum(values: np.ndarray) -> np.ndarray:
    """The log of the sum over the grid ``(..., 1, 1)`` of exponentials ``(..., R, C)``."""
    top = values.max(axis=(-2, -1), keepdims=True)
    return top + np.log(np.exp(values - top).sum(axis=(-2, -1), keepdims=True))


def _divergence(grid: _Grid, log_q: np.ndarray, log_p: np.ndarray) -> float:
    """KL(q || p) of densities ``(R, C)`` in nats, q normalised over the grid."""
    log_q = log_q - _log_sum(log_q + grid.log_area)
    return float((np.exp(log_q + grid.log_area) * (log_q - log_p)).sum())


def _windows(grid: _Grid, log_densities: Sequence[np.ndarray]) -> np.ndarray:
    """Limits ``(n, 2, 2)`` around 99 % of every density's mass, of one size for all data."""
    boxes = []
    for data in zip(*log_densities, strict=True):
        spans = [_span(grid, log_density) for log_density in data]
        boxes.append([np.min(spans, axis=0)[:, 0], np.max(spans, axis=0)[:, 1]])
    low, high = np.swapaxes(boxes, 0, 1)
    half = 0.6 * (high - low).max(axis=0)
    ends = np.array([[line[0], line[-1]] for line in (grid.first, grid.second)]).T
    half = np.minimum(half, (ends[1] - ends[0]) / 2)
    middle = np.clip((low + high) / 2, ends[0] + half, ends[1] - half)
    return np.stack([middle - half, middle + half], axis=-1)


def _span(grid: _Grid, log_density: np.ndarray) -> np.ndarray:
    """Where the middle 99 % of each latent lies ``(2, 2)``."""
    mass = np.exp(log_density + grid.log_area - _log_sum(log_density + grid.log_area))
    spans = []
    for line, axis in ((grid.first, 0), (grid.second, 1)):
        held = np.cumsum(mass.sum(axis=axis))
        ends = np.searchsorted(held, [0.005, 0.995])
        spans.append(line[np.minimum(ends, len(line) - 1)])
    return np.array(spans)


def _panel(axes: Axes, grid: _Grid, log_p: np.ndarray, guides: Mapping[str, np.ndarray]) -> None:
    mass = np.exp(log_p + grid.log_area)
    bounds = [*levels(np.exp(log_p), mass, _MASSES), np.inf]
    shades = [f"{shade:.2f}" for shade in np.linspace(0.93, 0.45, len(bounds) - 1)]
    axes.contourf(grid.first, grid.second, np.exp(log_p), bounds, colors=shades)
    for line, ((colour, dashes), (name, log_q)) in enumerate(
        zip(_LINES, guides.items(), strict=False)
    ):
        q = np.exp(log_q)
        mass = np.exp(log_q + grid.log_area)
        rising = levels(q, mass)
        if rising:
            axes.contour(grid.first, grid.second, q, rising, colors=colour, linestyles=[dashes])
        words = f"{name} {_divergence(grid, log_q, log_p):.2f}"
        if mass.sum() < 0.99:
            words += f", {1 - mass.sum():.0%} off the grid"
        place = {"xytext": (0, 4 + 13 * (len(guides) - 1 - line)), "textcoords": "offset points"}
        axes.annotate(words, (0, 1), xycoords="axes fraction", color=colour, fontsize=9, **place)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    handles = [Patch(color="0.6", label="p(z | x)")]
    for name, (colour, dashes) in zip(names, _LINES, strict=False):
        handles += [Line2D([], [], color=colour, linestyle=dashes, label=name)]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=5,
        title="lines hold 50 % and 90 %; numbers are KL(q || p(z | x)) in nats",
        alignment="left",
        title_fontsize=9,
    )
