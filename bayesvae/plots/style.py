"""What every picture shares: colours, sizes, checked arrays, and files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.core.files import write_aside

Values: TypeAlias = torch.Tensor | np.ndarray | Sequence[float]

# "Color Universal Design" (Okabe and Ito, 2008): all kinds of colour vision keep these apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), "-.")
# Eight inches shown at 800 pixels leave 10 pt text 14 pixels high.
WIDTH = 8.0
_LONGEST = 20
STYLE = {"legend.fontsize": 9, "legend.frameon": False, "legend.columnspacing": 1.2}
STYLE["text.parse_math"] = False  # names are text, a dollar sign in them included


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a PNG of 150 dots per inch, aside and then renamed: never half a file.

    Args:
        figure: any matplotlib figure.
        path: ends in ".png"; missing folders are made.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in ".png".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Figure(), f"{folder}/new/empty.png").name
        'empty.png'
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"`path` must end in '.png'; got '{path}'. Rename it.")
    write_aside(
        path, lambda aside: figure.savefig(aside, format="png", dpi=150, bbox_inches="tight")
    )
    return path


def arrays_of(
    named: Mapping[str, Values], remedy: str, finite: bool = True, dims: Sequence[int] = (1,)
) -> dict[str, np.ndarray]:
    """In float64, not empty, and all of the first one's shape."""
    arrays: dict[str, np.ndarray] = {}
    for name, values in named.items():
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().double().numpy()
        arrays[name] = array = np.asarray(values, dtype=float)
        first, shape = next((other, array.shape) for other, array in arrays.items())
        rule = None
        if array.shape != shape:
            rule = f"have the shape {shape} of `{first}`"
        elif not array.size or array.ndim not in dims:
            rule = "hold one entry for each datum"
        elif finite and not np.isfinite(array).all():
            rule = f"be finite; {np.sum(~np.isfinite(array))} entries are not"
        if rule:
            raise ValueError(f"`{name}` must {rule}; got shape {array.shape}. {remedy}")
    return arrays


def coordinates(name: str, values: Values) -> np.ndarray:
    """The coordinates of a grid along one axis: two or more, rising."""
    remedy = "Pass rising coordinates, such as torch.linspace(-3, 3, 50)."
    line = arrays_of({name: values}, remedy)[name]
    if len(line) < 2 or (np.diff(line) <= 0).any():
        raise ValueError(f"`{name}` must rise, from two on; got {len(line)} values. {remedy}")
    return line


def names_of(name: str, given: Sequence[str] | None, count: int, default: str) -> list[str]:
    """Names for each of ``count``; the default, numbered from 1, if none are given."""
    words = [str(word) for word in given or [f"{default}{i + 1}" for i in range(count)]]
    if len(words) != count:
        raise ValueError(f"`{name}` must be {count} names; got {len(words)}. Name all or none.")
    return words


def shortened(name: str) -> str:
    """The beginning and the end of a name that is long."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 8]}…{name[-7:]}"


def number(value: float, form: str) -> str:
    """A number with a minus that is one."""
    return f"{value:{form}}".replace("-", "−")


def stderr_of(values: np.ndarray) -> float:
    """The standard error of a mean; NaN of a single value."""
    return values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan


def mean_in_words(values: np.ndarray) -> str:
    """Mean ± standard error, to two digits of the error and at least two decimals."""
    stderr = stderr_of(values)
    digits = 2 if not stderr > 0 else int(min(max(1 - np.floor(np.log10(stderr)), 2), 4))
    error = "" if np.isnan(stderr) else f" ± {stderr:.{digits}f}"
    return f"{number(values.mean(), f'.{digits}f')}{error}"


def rounded(value: float, digits: int = 2) -> str:
    """A number of so many significant digits, without exponent unless it is far from 1."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return number(value, f".{digits}g")
    how = {"unique": False, "fractional": False, "trim": "-"}
    return np.format_float_positional(value + 0.0, digits, **how).replace("-", "−")


def written(values: Values, digits: int = 2) -> list[str]:
    """Numbers of at least so many digits, each off by a fortieth of their least step at most."""
    line = np.asarray(values, dtype=float)
    step = np.diff(np.unique(line)).min(initial=np.inf)
    # What should be 0, but for rounding, is.
    line = np.where(abs(line) < 1e-6 * step, 0.0, line) if np.isfinite(step) else line
    return [_written(value, digits, step / 40) for value in line]


def _written(value: float, digits: int, tolerance: float) -> str:
    words = [rounded(value, more) for more in range(digits, 7)]
    good = (w for w in words if abs(float(w.replace("−", "-")) - value) <= tolerance)
    return next(good, words[-1])


def marker(points: int) -> str:
    """Dots where there are few points, a larger one where there is one, none on a long curve."""
    return "o" if points == 1 else "." if points < 30 else ""


def fresh(height: float) -> Axes:
    """The axes of a new figure of full width; ``height`` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained").subplots()


def multiples(count: int, across: int, height: float, above: float) -> list[Axes]:
    """The axes of a figure of full width, ``across`` in a row; heights in inches."""
    across = min(count, across)
    rows = -(-count // across)
    figure = Figure(figsize=(WIDTH, rows * height + above), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    panels = figure.subplots(rows, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return list(panels[:count])


def tabled(axes: Axes, ticks: Mapping[float, str]) -> None:
    """Writes texts at heights of the y-axis, without tick marks."""
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)


def headroom(values: np.ndarray, least: float) -> tuple[float, str]:
    """Where to end an axis that a few values far above the others would flatten, and what to say.

    Args:
        values: ``(n,)``; the axis ends at twice their 98th percentile if the largest lies far
            beyond.
        least: where it ends at the earliest.
    """
    most = values.max()
    top = max(2 * np.quantile(values, 0.98), least)
    if most <= 1.5 * top:
        return max(1.05 * most, least), ""
    return top, f"above the axis: {(values > top).sum()}, up to {rounded(most, 3)}"


def despined(axes: Axes, *also: str) -> Axes:
    """The axes without their upper, right and further spines."""
    axes.spines[["top", "right", *also]].set_visible(False)
    return axes
