"""What a bracket of log p(x) costs: the picture of its width and lower end against budget."""

from collections.abc import Mapping, Sequence
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
    number,
    rounded,
)

_LOOKS = tuple(zip((BLUE, ORANGE, GREEN, PURPLE), "osD^", DASHES, strict=True))
_LINEAR = 0.1  # nats: narrower than that a width may be noise of either sign


class WidthCurve(NamedTuple):
    """Brackets of the same data at several budgets, means over data; all arrays ``(M,)``.

    Attributes:
        budget: of each bracket, rising, such as temperatures or gradients a datum.
        width: upper minus lower end, nats per datum.
        width_stderr: its standard errors.
        lower: the lower end, nats per datum.
        lower_stderr: its standard errors from chains, not from data: those are the same.

    Example:
        >>> WidthCurve([50, 200], [1.0, 0.2], [0.1, 0.05], [-90.6, -90.1], [0.1, 0.05]).width
        [1.0, 0.2]
    """

    budget: Values
    width: Values
    width_stderr: Values
    lower: Values
    lower_stderr: Values


@rc_context(STYLE)
def bracket_widths(
    curves: Mapping[str, WidthCurve], *, target: float | None = None, unit: str = "temperatures"
) -> Figure:
    """How narrow a bracket of log p(x) gets with its budget, for several starts of its chains.

    At the left the width; below 0.1 nats its axis is linear, as there a width is noise of either
    sign. At the right the lower end: the dotted line is one lower bound, the vertical ones are
    the budgets at which each start reaches it, between brackets by straight lines in the log of
    the budget. All bars are one standard error.

    Args:
        curves: by the name of the start, such as "guide" and "prior"; up to four.
        target: the lower bound to reach, nats; if None the highest that all starts reach.
        unit: what the budget counts.

    Returns:
        A figure with two axes; its legend says what budget each start needs.

    Raises:
        ValueError: if arrays are not alike or finite, budgets do not rise from above 0, or curves
            are none or more than four.

    Example:
        >>> guide = WidthCurve([10, 100], [1.0, 0.1], [0.1, 0.1], [-91.0, -90.0], [0.1, 0.1])
        >>> prior = WidthCurve([10, 100], [9.0, 0.5], [0.1, 0.1], [-99.0, -90.5], [0.1, 0.1])
        >>> figure = bracket_widths({"guide": guide, "prior": prior})
        >>> figure.axes[1].get_legend_handles_labels()[1]
        ['guide: at 32', 'prior: at 100']
    """
    curves = _checked(curves)
    reached = min(curve.lower.max() for curve in curves.values())
    target = reached if target is None else float(target)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    width, lower = figure.subplots(1, 2)
    for look, (name, curve) in zip(_LOOKS, curves.items(), strict=False):
        needed = _reached(curve.budget, curve.lower, target)
        label = f"{name}: " + ("not reached" if needed is None else f"at {rounded(needed)}")
        _curve(width, curve.budget, curve.width, curve.width_stderr, look, label)
        _curve(lower, curve.budget, curve.lower, curve.lower_stderr, look, label)
        if needed is not None:
            lower.axvline(needed, color=look[0], linestyle=":", linewidth=1.2)
    _worded(width, lower, _apart(curves), target, unit)
    return figure


def _checked(curves: Mapping[str, WidthCurve]) -> dict[str, WidthCurve]:
    if not 0 < len(curves) <= len(_LOOKS):
        raise ValueError(f"`curves` must be one to {len(_LOOKS)}, by name; got {len(curves)}.")
    checked = {}
    for name, curve in curves.items():
        named = {f"curves['{name}'].{key}": values for key, values in curve._asdict().items()}
        arrays = arrays_of(named, "Pass one finite value for each budget.")
        budget = next(iter(arrays.values()))
        if budget.min() <= 0 or (np.diff(budget) <= 0).any():
            raise ValueError(
                f"`curves['{name}'].budget` must rise from above 0; got {budget.tolist()}. Sort "
                "the brackets."
            )
        checked[name] = WidthCurve(*arrays.values())
    return checked


def _curve(
    axes: Axes, x: np.ndarray, y: np.ndarray, stderr: np.ndarray, look: tuple, label: str
) -> None:
    colour, shape, dashes = look
    style = {"color": colour, "marker": shape, "markersize": 4, "linestyle": dashes}
    axes.errorbar(x, y, stderr, label=label, capsize=3, **style)


def _reached(budget: np.ndarray, lower: np.ndarray, target: float) -> float | None:
    """The first budget at which a lower bound reaches the target; None if none does."""
    first = int(np.argmax(lower >= target))
    if lower[first] < target:
        return None
    if first == 0:
        return float(budget[0])
    share = (target - lower[first - 1]) / (lower[first] - lower[first - 1])
    return float(budget[first - 1] * (budget[first] / budget[first - 1]) ** share)


def _apart(curves: Mapping[str, WidthCurve]) -> list[float]:
    """Budgets so far apart on a log axis that their numbers have room."""
    budgets = np.unique(np.concatenate([curve.budget for curve in curves.values()]))
    least = np.log(budgets[-1] / budgets[0]) / 8
    apart = [budgets[0]]
    for budget in budgets[1:]:
        if np.log(budget / apart[-1]) >= least:
            apart.append(budget)
    return [float(budget) for budget in apart]


def _worded(width: Axes, lower: Axes, budgets: Sequence[float], target: float, unit: str) -> None:
    """Scales, words at the axes, and legends above them."""
    width.set_yscale("symlog", linthresh=_LINEAR)
    width.yaxis.set_major_formatter(lambda value, _: rounded(value))
    width.axhline(0.0, color=GREY, linewidth=0.8)
    lower.axhline(target, color=GREY, linestyle=":", linewidth=1.2)
    width.set_ylabel("upper − lower end (nats per datum)")
    lower.set_ylabel("lower end of log p(x) (nats per datum)")
    reach = f"the lower end reaches {number(target, '.2f')} nats (dotted)"
    title = f"start of the chains, and where {reach}"
    words = {"title": title, "title_fontsize": 9, "alignment": "left", "ncols": 3}
    handles = width.get_legend_handles_labels()
    width.figure.legend(*handles, loc="outside upper left", **words)
    for axes in (width, lower):
        axes.set(xscale="log", xlabel=unit)
        axes.set_xticks(budgets, [rounded(budget, 3) for budget in budgets])
        axes.minorticks_off()
        despined(axes)
