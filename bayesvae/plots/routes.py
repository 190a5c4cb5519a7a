"""The picture of several ways to train one model, against the clock."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.curves import bulk
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
    despined,
    marker,
    number,
)

_LOOKS = tuple(zip((BLUE, ORANGE, GREEN, PURPLE, "black"), (*DASHES, (0, (8, 2))), strict=True))
_WIDE = 30.0  # the ratio of times from which on their axis is logarithmic


class RouteCurve(NamedTuple):
    """The ELBO along one way of training, ``(T,)`` each.

    Attributes:
        seconds: of the clock since the start of training, rising; evaluation left out.
        train: the ELBO on training data, nats per datum; NaN where it was not evaluated.
        unseen: on data that it was not trained on; None if it serves none.
        train_stderr: standard errors; None if not known.
        unseen_stderr: likewise.

    Example:
        >>> RouteCurve([1.0, 2.0], [-120.0, -110.0]).unseen is None
        True
    """

    seconds: Values
    train: Values
    unseen: Values | None = None
    train_stderr: Values | None = None
    unseen_stderr: Values | None = None


@rc_context(STYLE)
def training_routes(curves: Mapping[str, RouteCurve]) -> Figure:
    """The ELBO of one model against wall-clock time, for several ways to train it.

    Training data at the left, unseen ones at the right, on one scale; bands are one standard
    error. From its best value a curve is shown at least twice as far down as its lower quartile
    lies, and what lies below is counted.

    Args:
        curves: by the name of the way, up to five.

    Returns:
        A figure with two axes, or one if no way has unseen data.

    Raises:
        ValueError: if arrays of a way are not alike, a curve has no finite value, or curves are
            none or more than five.

    Example:
        >>> curve = RouteCurve([1.0, 2.0], [-120.0, -110.0], [-121.0, -112.0])
        >>> [axes.get_title("left") for axes in training_routes({"amortized": curve}).axes]
        ['training data', 'unseen data']
    """
    checked = _checked(curves)
    panels = {"training data": "train", "unseen data": "unseen"}
    drawn = {
        title: {name: _points(arrays, kind) for name, arrays in checked.items() if kind in arrays}
        for title, kind in panels.items()
    }
    drawn = {title: lines for title, lines in drawn.items() if lines}
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    figures = figure.subplots(1, len(drawn), sharex=True, sharey=True, squeeze=False)[0]
    looks = dict(zip(checked, _LOOKS, strict=False))
    for axes, (title, lines) in zip(figures, drawn.items(), strict=True):
        _routes(axes, lines, looks)
        axes.set_title(title, loc="left", fontsize=10)
    _scaled(figures, [line for lines in drawn.values() for line in lines.values()])
    figures[0].set_ylabel("ELBO (nats per datum)")
    handles, labels = figures[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


class _Line(NamedTuple):
    """A curve where it was evaluated."""

    seconds: np.ndarray
    elbo: np.ndarray
    stderr: np.ndarray


def _checked(curves: Mapping[str, RouteCurve]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each way by the names of its fields, without those that are None."""
    if not 0 < len(curves) <= len(_LOOKS):
        raise ValueError(f"`curves` must be one to {len(_LOOKS)}, by name; got {len(curves)}.")
    checked = {}
    for name, curve in curves.items():
        given = {key: values for key, values in curve._asdict().items() if values is not None}
        labels = {f"curves['{name}'].{key}": values for key, values in given.items()}
        remedy = "Pass one value for each time, NaN if not evaluated."
        arrays = arrays_of(labels, remedy, finite=False)
        for key in ("train", "unseen"):
            line = arrays.get(f"curves['{name}'].{key}")
            if line is not None and not np.isfinite(line).any():
                raise ValueError(
                    f"`curves['{name}'].{key}` must have a finite value; got {line}. Did it "
                    "diverge?"
                )
        checked[name] = dict(zip(given, arrays.values(), strict=True))
    return checked


def _points(arrays: Mapping[str, np.ndarray], kind: str) -> _Line:
    seen = np.isfinite(arrays[kind])
    stderr = arrays.get(f"{kind}_stderr", np.zeros_like(seen, dtype=float))
    return _Line(arrays["seconds"][seen], arrays[kind][seen], stderr[seen])


def _routes(axes: Axes, lines: Mapping[str, _Line], looks: Mapping[str, tuple]) -> None:
    for name, (seconds, elbo, stderr) in lines.items():
        colour, dashes = looks[name]
        style = {"color": colour, "linestyle": dashes, "marker": marker(len(seconds))}
        axes.plot(seconds, elbo, label=name, **style)
        axes.fill_between(seconds, elbo - stderr, elbo + stderr, color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("seconds of training")
    despined(axes)


def _scaled(panels: Sequence[Axes], lines: Sequence[_Line]) -> None:
    """The panels' common scales: the bulk of all curves, a log axis for times far apart."""
    seconds = np.concatenate([line.seconds for line in lines])
    elbo = np.concatenate([line.elbo for line in lines])
    low, top = bulk(line.elbo for line in lines), elbo.max()
    if below := (elbo < low).sum():
        panels[0].set_ylim(low, top + 0.05 * (top - low))
        text = f"points below the axis: {below}, down to {number(elbo.min(), '.4g')}"
        panels[0].set_xlabel(f"{panels[0].get_xlabel()}\n{text}")
    if seconds.min() > 0 and seconds.max() > _WIDE * seconds.min():
        panels[0].set_xscale("log")
