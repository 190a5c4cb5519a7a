r"""Pictures of a latent-variable model: its samples, its training, its inference gaps.

The gap between the log evidence and the ELBO of a guide $q_\phi$ splits at the best member $q^*$
of the guide's own family, found for each datum by itself,

    log p(x) - L[q_phi]  =  (log p(x) - L[q*])  +  (L[q*] - L[q_phi])
       inference gap        approximation gap      amortization gap

("Inference Suboptimality in Variational Autoencoders", Cremer, Li and Duvenaud, 2018). Data
differ far more from one another than these bounds do, so standard errors are those of paired
differences. Figures are not pyplot's: nothing to close, no display needed.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Values: TypeAlias = torch.Tensor | np.ndarray | Sequence[float]

# "Color Universal Design" (Okabe and Ito, 2008): all kinds of colour vision keep these apart.
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
_GAPS = {"amortization gap": _ORANGE, "approximation gap": _BLUE, "inference gap": _PURPLE}
_GAIN = "other family's q*"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), "-.")
# Eight inches shown at 800 pixels leave 10 pt text 14 pixels high.
_WIDTH, _LABEL = 8.0, 1.3
_STYLE = {"legend.fontsize": 9, "legend.frameon": False, "legend.columnspacing": 1.2}


@rc_context(_STYLE)
def samples(
    means: Values, draws: Values | None = None, columns: int = 10, *, noise: bool = False
) -> Figure:
    """Blocks of a model's means and of the data drawn around them.

    Datum ``i`` has the same place in every block. Means and draws share a grey scale that clips:
    0 to 1 if the means lie there, else the middle 99 % of all values, written at the left.
    Vectors become heat-maps with a row for each datum; one that is a flattened image is yours to
    reshape: ``x.unflatten(-1, (28, 28))``.

    Args:
        means: ``(n, H, W)``, ``(n, 1, H, W)``, ``(n, 3, H, W)`` in colour, or vectors ``(n, D)``.
        draws: of the same shape.
        columns: images in a row.
        noise: also show ``draws - means``, 0 as mid-grey, black and white three root mean squares
            away. For a Normal likelihood; a Bernoulli's draws say as much.

    Returns:
        A figure of one axes, with the names of the blocks at the left.

    Raises:
        ValueError: on another shape, values that are not finite, or noise without draws.

    Example:
        >>> means = torch.rand(20, 1, 8, 8)
        >>> axes = samples(means, torch.bernoulli(means)).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['mean', 'draw']
    """
    if draws is None:
        if noise:
            raise ValueError("noise=True needs `draws`; got None. Pass draws, or noise=False.")
        (mean,) = _images(means=means)
        return _grid([("mean", mean, _range(mean))], columns)
    mean, draw = _images(means=means, draws=draws)
    scale, rest = _range(mean, draw), draw - mean
    if not noise:
        return _grid([("mean", mean, scale), ("draw", draw, scale)], columns)
    white = 3 * np.sqrt(np.mean(rest**2)) or 1.0
    noisy = [("+ noise", rest, (-white, white)), ("= draw", draw, scale)]
    return _grid([("mean", mean, scale), *noisy], columns)


@rc_context(_STYLE)
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
        >>> x = torch.rand(15, 8, 8)
        >>> len(reconstructions(x, x.sqrt()).axes[0].images)
        30
    """
    x, mean = _images(originals=originals, means=means)
    step = len(x) if x.ndim == 2 else max(columns, 1)
    blocks = [
        (label, values[start : start + step], _range(x, mean))
        for start in range(0, len(x), step)
        for label, values in (("original", x), ("reconstruction", mean))
    ]
    return _grid(blocks, columns, group=2)


@rc_context(_STYLE)
def training_curve(
    epochs: Sequence[int],
    train: Values,
    validation: Values | None = None,
    axes: Axes | None = None,
) -> Axes:
    """The ELBO over training, in nats per datum; higher is better.

    From its best value a curve is shown at least twice as far down as its lower quartile lies;
    a note counts the epochs below that, most often the first ones.

    Args:
        epochs: of length T.
        train: ``(T,)`` in nats per datum; NaN where an epoch was not evaluated.
        validation: likewise; if given, the best epoch is the one of this curve.
        axes: drawn on if given.

    Returns:
        The axes.

    Raises:
        ValueError: if the lengths differ or a curve has no finite value.

    Example:
        >>> axes = training_curve([1, 2, 3], [-120.0, -101.0, -99.0], [-121.0, -103.0, -104.0])
        >>> axes.get_legend_handles_labels()[1]
        ['train', 'validation', 'best: −103.00, epoch 2']
    """
    named = {"epochs": epochs, "train": train}
    named |= {} if validation is None else {"validation": validation}
    curves = _arrays(named, "Pass one value for each epoch, NaN if not evaluated.", finite=False)
    epoch = curves.pop("epochs")
    axes = axes or _fresh(3.4)
    for colour, (name, curve) in zip((_BLUE, _ORANGE), curves.items(), strict=False):
        seen = np.isfinite(curve)
        if not seen.any():
            raise ValueError(f"`{name}` must have a finite value; got {curve}. Did it diverge?")
        axes.plot(epoch[seen], curve[seen], color=colour, marker=_marker(seen.sum()), label=name)
    best = np.argmax(np.where(seen, curve, -np.inf))
    text = f"best: {curve[best]:.2f}, epoch {epoch[best]:.0f}".replace("-", "−")
    axes.plot(epoch[best], curve[best], "D", color="black", label=text)
    _limit(axes, np.stack(list(curves.values())))
    axes.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
    axes.set_xlim(epoch.min() - 1, epoch.max() + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")
    return _despined(axes)


class GapRow(NamedTuple):
    r"""What is known of one split of the data, per datum and in nats; all arrays ``(n,)``.

    An importance-sampled ``log_evidence`` lies below log p(x) in expectation, which makes the
    approximation gap too small. A $q^*$ optimised for too short makes it too large, and the
    amortization gap too small by as much. Both can turn a gap negative.

    Attributes:
        split: name of the split, such as "train" or "test".
        log_evidence: estimates of log p(x).
        guide: $L[q_\phi]$, the guide's ELBO.
        bounds: $L[q^*]$ by the name of the family in which $q^*$ was optimised.
        own: name of the guide's own family in ``bounds``. None if the guide is not of one family;
            its inference gap is then not divided.

    Example:
        >>> GapRow("test", log_evidence=[-14.0, -15.0], guide=[-15.0, -17.0]).own is None
        True
    """

    split: str
    log_evidence: Values
    guide: Values
    bounds: Mapping[str, Values] = MappingProxyType({})
    own: str | None = None


@rc_context(_STYLE)
def gaps(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """Mean gaps, as a ladder from the guide's ELBO at 0 up to log p(x).

    A bar for each gap, the next from where the last ends; a marker for what the optimum of each
    other family gains over the guide; numbers and paired standard errors at the right.

    Args:
        rows: one for each split, drawn downwards on a shared axis.
        axes: drawn on if given; leave room for the numbers at its right.

    Returns:
        The axes, in nats per datum.

    Raises:
        ValueError: if there is no row, arrays are not alike, or ``own`` is not in ``bounds``.

    Example:
        >>> row = GapRow("test", [-14.0, -15.0], [-15.5, -17.5], {"normal": [-15, -16]}, "normal")
        >>> [round(float(bar.get_width()), 2) for bar in gaps([row]).patches]
        [1.0, 1.0]
    """
    rows = _checked(rows)
    axes = axes or _fresh(_height(rows))
    ticks: dict[float, str] = {}
    line = 0.0
    for row in rows:
        line = _ladder(axes, row, line, ticks)
    axes.set(ylim=(line - 0.9, -0.7))
    axes.set_xlabel("nats per datum above the guide's ELBO (± 1 standard error)")
    _tabled(axes, ticks)
    for label, name in zip(axes.get_yticklabels(), ticks.values(), strict=True):
        label.set_fontweight("bold" if name in [row.split for row in rows] else "normal")
    handles, labels = axes.get_legend_handles_labels()
    drawn = dict(zip(labels, handles, strict=True))
    order = [name for name in (*_GAPS, _GAIN, "log p(x)") if name in drawn]
    legend = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4}
    axes.legend([drawn[name] for name in order], order, **legend)
    return _despined(axes, "left")


@rc_context(_STYLE)
def gap_curves(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """Gaps of single data, each gap sorted by itself: do all data lose a little, or a few much?

    The area under a curve is the mean gap.

    Args:
        rows: one for each split, told apart by their dashes.
        axes: drawn on if given.

    Returns:
        The axes: gaps in nats against the percentage of data with a smaller one.

    Raises:
        ValueError: as in ``gaps``.

    Example:
        >>> axes = gap_curves([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])])
        >>> axes.lines[0].get_ydata().tolist()
        [1.0, 1.5]
    """
    rows = _checked(rows)
    axes = axes or _fresh(3.4)
    for row, dashes in zip(rows, itertools.cycle(_DASHES), strict=False):
        percent = (np.arange(len(row.guide)) + 0.5) * 100 / len(row.guide)
        style = {"linestyle": dashes, "marker": _marker(len(percent))}
        for _, gap, difference in _rungs(row):
            if gap != _GAIN:
                label = f"{gap}, {row.split}"
                axes.plot(percent, np.sort(difference), color=_GAPS[gap], label=label, **style)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set(xlim=(0, 100), xlabel="data, sorted by their gap (%)", ylabel="gap of a datum (nats)")
    axes.legend(loc="upper left")
    return _despined(axes)


@rc_context(_STYLE)
def gap_figure(rows: Sequence[GapRow]) -> Figure:
    """The whole story in two panels: ``gaps`` above ``gap_curves``.

    Args:
        rows: one for each split.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: as in ``gaps``.

    Example:
        >>> len(gap_figure([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])]).axes)
        2
    """
    heights = [_height(_checked(rows)), 3.0]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=heights, gridspec_kw={"hspace": 0.1})
    gaps(rows, upper)
    gap_curves(rows, lower)
    return figure


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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(aside, format="png", dpi=150, bbox_inches="tight")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _arrays(
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


def _images(**named: Values) -> list[np.ndarray]:
    """Arrays ``(n, H, W)``, ``(n, H, W, 3)`` or ``(n, D)``."""
    kinds = "images (n, H, W), (n, 1, H, W), (n, 3, H, W) or vectors (n, D)"
    arrays = list(_arrays(named, f"Pass finite {kinds}.", dims=(2, 3, 4)).values())
    shape = arrays[0].shape
    if len(shape) < 4:
        return arrays
    if shape[1] not in (1, 3):
        raise ValueError(f"`{next(iter(named))}` must be {kinds}; got {shape}. Is n in front?")
    return [np.moveaxis(a, 1, -1) if shape[1] == 3 else a[:, 0] for a in arrays]


def _range(first: np.ndarray, *others: np.ndarray) -> tuple[float, float]:
    if first.min() >= 0 and first.max() <= 1:
        return 0.0, 1.0
    low, high = np.quantile(np.stack([first, *others]), (0.005, 0.995))
    return low, max(high, low + 1e-6)


def _grid(
    blocks: Sequence[tuple[str, np.ndarray, tuple[float, float]]], columns: int, group: int = 1
) -> Figure:
    """Named blocks of values on a scale, downwards, with space after each ``group`` of them."""
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1; got {columns}. The default is 10.")
    first = blocks[0][1]
    vectors = first.ndim == 2
    columns = 1 if vectors else min(columns, len(first))
    cell = _WIDTH - _LABEL if vectors else min(1.5, (_WIDTH - _LABEL) / columns)
    aspect = 0.25 if vectors else first.shape[1] / first.shape[2]
    axes, ticks, top = _fresh(1.0), {}, -0.2
    for i, (name, values, (low, high)) in enumerate(blocks):
        top += 0.2 * (i % group == 0)
        for j, image in enumerate(values[None] if vectors else values):
            row, column = divmod(j, columns)
            shown = np.clip((image - low) / (high - low), 0, 1) if image.ndim == 3 else image
            box = (column + 0.03, column + 0.97, top + row + 0.97, top + row + 0.03)
            axes.imshow(shown, "gray", vmin=low, vmax=high, extent=box)
        black, white = f"{low:.2g} (black)".replace("-", "−"), f"{high:.2g} (white)"
        ticks[top + (row + 1) / 2] = name if (low, high) == (0, 1) else f"{name}\n{black}\n{white}"
        top += row + 1
    axes.set(xlim=(0, columns), ylim=(top, 0), xticks=[], aspect=aspect)
    axes.set_xlabel("dimension (a row for each datum)" if vectors else "")
    axes.figure.set_size_inches(_LABEL + columns * cell, top * cell * aspect + 0.4 * vectors)
    _tabled(axes, ticks)
    return _despined(axes, "left", "bottom").figure


def _limit(axes: Axes, curves: np.ndarray) -> None:
    """Cuts off what lies far below the bulk of every curve ``(C, T)``, and says so."""
    curves = np.where(np.isfinite(curves), curves, np.nan)
    top = np.nanmax(curves)
    low = min(2 * np.nanquantile(curve, 0.25) - np.nanmax(curve) for curve in curves)
    below = (curves < low).any(axis=0).sum()
    if below:
        axes.set_ylim(low, top + 0.05 * (top - low))
        text = f"epochs below the axis: {below}, down to {np.nanmin(curves):.4g}"
        axes.set_title(text.replace("-", "−"), loc="left", color=_GREY, fontsize=9)


def _checked(rows: Sequence[GapRow]) -> list[GapRow]:
    """The rows, as float64 arrays."""
    if not rows:
        raise ValueError("`rows` must hold a GapRow for each split; got none. Pass [GapRow(...)].")
    checked = []
    for split, log_evidence, guide, bounds, own in rows:
        if own is not None and own not in bounds:
            raise ValueError(
                f"`own` of '{split}' must be one of its `bounds`, {list(bounds)}; got '{own}'. "
                "Use None for a guide that is not of one family."
            )
        named = {"log_evidence": log_evidence, "guide": guide}
        named |= {f"bounds['{name}']": bound for name, bound in bounds.items()}
        arrays = _arrays(named, f"Pass finite values `(n,)`, for each datum of '{split}'.")
        evidence, elbo, *optima = arrays.values()
        checked.append(GapRow(split, evidence, elbo, dict(zip(bounds, optima, strict=True)), own))
    return checked


def _rungs(row: GapRow) -> list[tuple[str, str, np.ndarray]]:
    """Label, name and differences ``(n,)`` of each gap, then of each other family's gain."""
    best = row.bounds.get(row.own, row.guide)
    rungs = [
        (f"guide → {row.own} q*", "amortization gap", best - row.guide),
        (f"{row.own} q* → log p(x)", "approximation gap", row.log_evidence - best),
    ]
    if row.own is None:
        rungs = [("guide → log p(x)", "inference gap", row.log_evidence - row.guide)]
    others = (name for name in row.bounds if name != row.own)
    return rungs + [(f"guide → {name} q*", _GAIN, row.bounds[name] - row.guide) for name in others]


def _ladder(axes: Axes, row: GapRow, line: float, ticks: dict[float, str]) -> float:
    """Draws one split from ``line`` downwards and labels it in ``ticks``; the next free line."""
    across, head, end = axes.get_yaxis_transform(), line, 0.0
    text = f"log p(x) = {_number(row.log_evidence)},  guide's ELBO = {_number(row.guide)}  "
    text += f"(n = {len(row.guide)})"
    axes.text(0.01, line, text, transform=across, va="center", fontsize=9, color=_GREY)
    ticks[line] = row.split
    for label, name, difference in _rungs(row):
        line += 1.0
        ticks[line], mean = label, difference.mean()
        error = {"xerr": _stderr(difference), "ecolor": "black"}
        if name == _GAIN:
            axes.errorbar(mean, line, fmt="D", color=_GREEN, label=name, **error)
        else:
            axes.barh(line, mean, left=end, height=0.8, color=_GAPS[name], label=name)
            end += mean
            axes.errorbar(end, line, fmt="none", **error)
        axes.text(1.01, line, _number(difference), transform=across, va="center")
    axes.vlines(0.0, head + 0.5, line + 0.5, color=_GREY, linewidth=0.8)
    axes.vlines(end, head + 0.5, line + 0.5, color=_GREY, linestyle=":", label="log p(x)")
    return line + 1.5


def _stderr(values: np.ndarray) -> float:
    return values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan


def _number(values: np.ndarray) -> str:
    """Mean ± standard error, to two digits of the error and at least two decimals."""
    stderr = _stderr(values)
    digits = 2 if not stderr > 0 else int(min(max(1 - np.floor(np.log10(stderr)), 2), 4))
    error = "" if np.isnan(stderr) else f" ± {stderr:.{digits}f}"
    return f"{values.mean():.{digits}f}{error}".replace("-", "−")


def _height(rows: Sequence[GapRow]) -> float:
    return 1.1 + 0.27 * sum(1.5 + len(_rungs(row)) for row in rows)


def _marker(points: int) -> str:
    return "." if points < 30 else ""


def _fresh(height: float) -> Axes:
    return Figure(figsize=(_WIDTH, height), layout="constrained").subplots()


def _tabled(axes: Axes, ticks: Mapping[float, str]) -> None:
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)


def _despined(axes: Axes, *also: str) -> Axes:
    axes.spines[["top", "right", *also]].set_visible(False)
    return axes
