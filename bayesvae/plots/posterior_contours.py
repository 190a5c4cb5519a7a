"""The picture of what a guide makes of the true posterior, for two latents.

On a grid p(x, z) becomes p(z | x) by division with its own sum, and the inference gap of a datum
is a sum over cells, each of area a:

    KL(q || p(z | x))  =  sum_a q(z_a) a { log q(z_a) - log p(z_a | x) }
"""

import textwrap
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
    coordinates,
    multiples,
    names_of,
    number,
)

# As in the picture of the gaps: what the guide loses is orange, its own family's optimum blue.
_LINES = tuple(zip((ORANGE, BLUE, GREEN, PURPLE), DASHES, strict=True))
_ACROSS = 3
_COLUMNS = 6
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

    Lines hold 50 % and 90 % of an approximation; its number is KL(q || p(z | x)) in nats, what its
    bound lacks to log p(x) for this very datum. Each panel shows the part of the grid that has the
    mass. Below it stands what the grid does not hold or is too coarse for; of that there is no
    number but a question mark.

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
            finite, or no guide or more than four.

    Example:
        >>> import torch
        >>> line = torch.linspace(-4, 4, 81)
        >>> log_p = -0.5 * (line[:, None] ** 2 + line**2)[None]
        >>> log_q = log_p - torch.log(torch.tensor(2 * torch.pi))
        >>> figure = posteriors(line, line, log_p, {"encoder": log_q})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.00']
    """
    grid, joint, guides = _checked(first, second, log_joint, log_guides, len(_LINES))
    titles = names_of("titles", titles, len(joint), "datum ")
    log_posterior = joint - _log_sum(joint + grid.log_area)
    boxes = _windows(grid, [log_posterior, *guides.values()])
    each = [{name: q[i] for name, q in guides.items()} for i in range(len(joint))]
    flaws = [_flaws(grid, log_posterior[i], each[i]) for i in range(len(joint))]
    # Room enough that panels are as wide as they can be: the layout is then exact.
    height = min(WIDTH / min(len(joint), _ACROSS) - 0.45, 4) + 0.8 + 0.16 * max(map(len, flaws))
    panels = multiples(len(joint), _ACROSS, height, above=0.65)
    for i, axes in enumerate(panels):
        _panel(axes, grid, log_posterior[i], each[i], flaws[i], _LINES)
        axes.set_title(titles[i], loc="left", pad=20, fontsize=11)
        axes.set(xlim=boxes[i][0], ylim=boxes[i][1], aspect="equal")
        axes.locator_params(nbins=4)
        axes.set_ylabel("" if i % _ACROSS else "z2")
        lowest = i + _ACROSS >= len(joint)
        axes.set_xlabel("\n".join([*["z1"][:lowest], *flaws[i].values()]), fontsize=9)
    _legend(panels[0].figure, list(guides), any(flaws))
    return panels[0].figure


@rc_context(STYLE)
def posterior_panels(
    first: Values,
    second: Values,
    log_joint: Values,
    log_guides: Mapping[str, Values],
    *,
    titles: Sequence[str] | None = None,
) -> Figure:
    """The true posterior of each datum under every q, a panel each: a row a datum, a column a q.

    As ``posteriors``, for more or wilder densities than contours of one panel can show. The
    panels of a row show the same part of the grid.

    Args:
        first: coordinates of the first latent ``(C,)``, rising.
        second: those of the second ``(R,)``.
        log_joint: log p(x_n, z) ``(n, R, C)`` at ``z = (first[c], second[r])``, in nats, up to a
            constant for each datum.
        log_guides: log q(z | x_n) ``(n, R, C)`` by name, the guide's first: up to six. Densities
            of any shape, such as those of mixtures and flows.
        titles: of the rows.

    Returns:
        A figure with an axes for each datum and q, row by row.

    Raises:
        ValueError: as ``posteriors``, or if there are more than six.

    Example:
        >>> import torch
        >>> line = torch.linspace(-4, 4, 81)
        >>> log_p = -0.5 * (line[:, None] ** 2 + line**2)[None]
        >>> log_q = log_p - torch.log(torch.tensor(2 * torch.pi))
        >>> figure = posterior_panels(line, line, log_p, {"encoder": log_q, "flow": log_q})
        >>> [axes.get_title() for axes in figure.axes]
        ['encoder', 'flow']
    """
    grid, joint, guides = _checked(first, second, log_joint, log_guides, _COLUMNS)
    titles = names_of("titles", titles, len(joint), "datum ")
    log_posterior = joint - _log_sum(joint + grid.log_area)
    boxes = _windows(grid, [log_posterior, *guides.values()])
    side = min((WIDTH - 0.7) / len(guides) - 0.1, 2.6)
    each = [[{name: q[i]} for name, q in guides.items()] for i in range(len(joint))]
    flaws = [[_flaws(grid, log_posterior[i], q) for q in row] for i, row in enumerate(each)]
    notes = [[_wrapped("; ".join(found.values()), side) for found in row] for row in flaws]
    lines = sum(max(note.count("\n") + bool(note) for note in row) for row in notes)
    size = (0.7 + (side + 0.1) * len(guides), 0.95 + (side + 0.55) * len(joint) + 0.15 * lines)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(joint), len(guides), squeeze=False)
    for (i, j), axes in np.ndenumerate(panels):
        _panel(axes, grid, log_posterior[i], each[i][j], flaws[i][j], _LINES[min(j, 1) :])
        axes.set(xlim=boxes[i][0], ylim=boxes[i][1], aspect="equal")
        axes.tick_params(labelsize=8, labelleft=j == 0)
        axes.locator_params(nbins=4)
        axes.set_xlabel(notes[i][j], fontsize=8)
        # The blank holds the place of the number.
        head = (
            {"label": " ", "pad": 6} if i else {"label": _wrapped([*guides][j], side), "pad": 18}
        )
        axes.set_title(**head, fontsize=8)
        axes.set_ylabel("" if j else f"{titles[i]}\nz2", fontsize=9)
    figure.supxlabel("z1", fontsize=9)
    _legend(figure, [], lines > 0)
    return figure


def _wrapped(text: str, inches: float) -> str:
    """Text of 8 points in lines of so many inches."""
    return textwrap.fill(text, max(int(16.5 * inches), 8))


def _checked(
    first: Values,
    second: Values,
    log_joint: Values,
    log_guides: Mapping[str, Values],
    most: int,
) -> tuple[_Grid, np.ndarray, dict[str, np.ndarray]]:
    lines = [coordinates("first", first), coordinates("second", second)]
    if not 0 < len(log_guides) <= most:
        raise ValueError(
            f"`log_guides` must be one to {most}, by name; got {len(log_guides)}. Pass "
            "{'encoder': log_q}."
        )
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
    """Limits ``(n, 2, 2)`` of squares around the mass of every density of a datum."""
    boxes = []
    for data in zip(*log_densities, strict=True):
        spans = [_span(grid, log_density) for log_density in data]
        boxes.append([np.min(spans, axis=0)[:, 0], np.max(spans, axis=0)[:, 1]])
    low, high = np.swapaxes(boxes, 0, 1)
    ends = np.array([[line[0], line[-1]] for line in (grid.first, grid.second)]).T
    half = 0.55 * (high - low).max(axis=1, keepdims=True)
    half = np.minimum(half, (ends[1] - ends[0]) / 2)
    middle = np.clip((low + high) / 2, ends[0] + half, ends[1] - half)
    return np.stack([middle - half, middle + half], axis=-1)


def _span(grid: _Grid, log_density: np.ndarray) -> np.ndarray:
    """Between which values each latent has all but a five-hundredth of the mass ``(2, 2)``."""
    mass = np.exp(log_density + grid.log_area - _log_sum(log_density + grid.log_area))
    spans = []
    for line, axis in ((grid.first, 0), (grid.second, 1)):
        ends = np.searchsorted(np.cumsum(mass.sum(axis=axis)), [0.001, 0.999])
        spans.append(line[np.minimum(ends, len(line) - 1)])
    return np.array(spans)


def _panel(
    axes: Axes,
    grid: _Grid,
    log_p: np.ndarray,
    log_guides: Mapping[str, np.ndarray],
    flaws: Mapping[str | None, str],
    looks: Sequence[tuple],
) -> None:
    """The posterior's regions, the guides' contours, and the divergences above them."""
    bounds = [*levels(np.exp(log_p), np.exp(log_p + grid.log_area), _MASSES), np.inf]
    shades = [f"{shade:.2f}" for shade in np.linspace(0.93, 0.5, len(bounds) - 1)]
    axes.contourf(grid.first, grid.second, np.exp(log_p), bounds, colors=shades)
    for place, (name, log_q) in enumerate(log_guides.items()):
        colour, dashes = looks[place]
        q, mass = np.exp(log_q), np.exp(log_q + grid.log_area)
        look = {"colors": colour, "linestyles": [dashes], "linewidths": 1.5}
        if rising := levels(q, mass):
            axes.contour(grid.first, grid.second, q, rising, **look)
        above = {"xytext": (42 * place, 5), "textcoords": "offset points", "color": colour}
        known = not {None, name} & flaws.keys()
        divergence = number(_divergence(grid, log_q, log_p), ".2f") if known else "?"
        axes.annotate(divergence, (0, 1), xycoords="axes fraction", **above)


def _flaws(
    grid: _Grid, log_p: np.ndarray, log_guides: Mapping[str, np.ndarray]
) -> dict[str | None, str]:
    """What a grid is too small or coarse for: guides by name, the posterior under None."""
    edge = np.ones_like(log_p, dtype=bool)
    edge[1:-1, 1:-1] = False
    cut = log_p[edge].max() > log_p.max() + np.log(0.05)
    flaws: dict[str | None, str] = {None: "grid cuts p(z | x) off"} if cut else {}
    for name, log_q in log_guides.items():
        held = 100 * np.exp(log_q + grid.log_area).sum()
        if held < 99:
            flaws[name] = f"grid holds {held:.0f} % of {name}"
        elif held > 101:
            flaws[name] = f"grid too coarse for {name}"
    return flaws


def _legend(figure: Figure, names: Sequence[str], flawed: bool) -> None:
    handles = [Patch(color="0.65", label="p(z | x)")]
    for name, (colour, dashes) in zip(names, _LINES, strict=False):
        handles += [Line2D([], [], color=colour, linestyle=dashes, label=name)]
    title = "lines hold 50 % and 90 % of q; numbers are KL(q || p(z | x)) in nats"
    title += ", or ? where the grid is too small or coarse" if flawed else ""
    words = {"title": title, "title_fontsize": 9, "alignment": "left"}
    figure.legend(handles=handles, loc="outside upper left", ncols=5, **words)
