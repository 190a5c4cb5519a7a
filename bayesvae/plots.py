r"""Pictures of a latent-variable model: its samples, its training, its inference gaps.

The gap between the log evidence and the ELBO of a guide $q_\phi$ splits at the best member $q^*$
of the guide's own family, found for each datum by itself,

    log p(x) - L[q_phi]  =  (log p(x) - L[q*])  +  (L[q*] - L[q_phi])
       inference gap        approximation gap      amortization gap

("Inference Suboptimality in Variational Autoencoders", Cremer, Li and Duvenaud, 2018). Data
differ far more from one another than these bounds do, so standard errors are those of paired
differences. Figures are not pyplot's: nothing to close, no display needed.
"""

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
_GAIN = "gain of another family's q*"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), "-.")
# Eight inches shown at 800 pixels leave 10 pt text 14 pixels high.
_WIDTH, _LABEL = 8.0, 1.3
_STYLE = {"font.size": 10, "legend.fontsize": 9, "legend.frameon": False}


@rc_context(_STYLE)
def samples(
    means: Values, draws: Values | None = None, columns: int = 10, *, noise: bool = False
) -> Figure:
    """Blocks of a model's means and of the data drawn around them.

    Datum `i` has the same place in every block. Means and draws share one grey scale, 0 to 1 if
    all lie there, else the range that the label gives. Vectors become heat-maps with a row for
    each datum; one that is a flattened image is yours to reshape: `x.unflatten(-1, (28, 28))`.

    Args:
        means: `(n, H, W)`, `(n, 1, H, W)`, `(n, 3, H, W)` in colour, or vectors `(n, D)`.
        draws: of the same shape.
        columns: images in a row.
        noise: also show `draws - means`, with 0 as mid-grey. For a Normal likelihood; the noise
            of a Bernoulli says nothing that its draws do not.

    Returns:
        A figure with one axes for each block.

    Raises:
        ValueError: on another shape, values that are not finite, or noise without draws.

    Example:
        >>> means = torch.rand(20, 1, 8, 8)
        >>> [axes.get_ylabel() for axes in samples(means, torch.bernoulli(means)).axes]
        ['mean', 'draw']
    """
    if draws is None:
        if noise:
            raise ValueError("noise=True needs `draws`; got None. Pass draws, or noise=False.")
        (mean,) = _images(means=means)
        return _stack([("mean", mean)], _range(mean), columns)
    mean, draw = _images(means=means, draws=draws)
    blocks = [("mean", mean), ("+ noise", draw - mean), ("= draw" if noise else "draw", draw)]
    return _stack(blocks if noise else blocks[::2], _range(mean, draw), columns)


@rc_context(_STYLE)
def reconstructions(originals: Values, means: Values, columns: int = 10) -> Figure:
    """Data above their reconstructions, row by row, on one scale as in `samples`.

    Args:
        originals: images or vectors, of a shape that `samples` takes.
        means: the likelihood's mean, given the guide's code of each original; same shape.
        columns: images in a row.

    Returns:
        A figure with two axes for each row of images, or two heat-maps of vectors.

    Raises:
        ValueError: on another shape, or values that are not finite.

    Example:
        >>> x = torch.rand(15, 8, 8)
        >>> len(reconstructions(x, x.sqrt()).axes)
        4
    """
    x, mean = _images(originals=originals, means=means)
    step = len(x) if x.ndim == 2 else max(columns, 1)
    blocks = [
        (label, values[start : start + step])
        for start in range(0, len(x), step)
        for label, values in (("original", x), ("reconstruction", mean))
    ]
    return _stack(blocks, _range(x, mean), columns, group=2)


@rc_context(_STYLE)
def training_curve(
    epochs: Sequence[int],
    train: Values,
    validation: Values | None = None,
    axes: Axes | None = None,
) -> Axes:
    """The ELBO over training, in nats per datum; higher is better.

    From its best value a curve is shown at least twice as far down as its lower quartile lies;
    a note counts the epochs that are lower still, most often the first ones.

    Args:
        epochs: of length T.
        train: `(T,)` in nats per datum; NaN where an epoch was not evaluated.
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
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return _despined(axes)


class GapRow(NamedTuple):
    r"""What is known of one split of the data, per datum and in nats; all arrays `(n,)`.

    An importance-sampled `log_evidence` lies below log p(x) in expectation, which makes the
    approximation gap too small. A $q^*$ optimised for too short makes it too large, and the
    amortization gap too small by as much. Both can turn a gap negative.

    Attributes:
        split: name of the split, such as "train" or "test".
        log_evidence: estimates of log p(x).
        guide: $L[q_\phi]$, the guide's ELBO.
        bounds: $L[q^*]$ by the name of the family in which $q^*$ was optimised.
        own: name of the guide's own family in `bounds`. None if the guide is not of one family;
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
        ValueError: if there is no row, arrays are not alike, or `own` is not in `bounds`.

    Example:
        >>> row = GapRow("test", [-14.0, -15.0], [-15.5, -17.5], {"normal": [-15, -16]}, "normal")
        >>> [round(bar.get_width(), 2) for bar in gaps([row]).patches]
        [1.0, 1.0]
    """
    rows = _checked(rows)
    axes = axes or _fresh(_height(rows))
    ticks: dict[float, str] = {}
    line = 0.0
    for row in rows:
        line = _ladder(axes, row, line, ticks)
    axes.axvline(0.0, color=_GREY, linewidth=0.8)
    axes.set(ylim=(line - 0.9, -0.7), xlabel="nats per datum above the guide's ELBO (± 1 s.e.)")
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    handles, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    axes.legend(shown.values(), shown, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return _despined(axes, "left")


@rc_context(_STYLE)
def gap_curves(rows: Sequence[GapRow], axes: Axes | None = None) -> Axes:
    """Gaps of single data, each gap sorted by itself: do all data lose a little, or a few much?

    Args:
        rows: one for each split, told apart by their dashes.
        axes: drawn on if given.

    Returns:
        The axes: gaps in nats against the percentage of data with a smaller one.

    Raises:
        ValueError: as in `gaps`.

    Example:
        >>> axes = gap_curves([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])])
        >>> axes.lines[0].get_ydata().tolist()
        [1.0, 1.5]
    """
    rows = _checked(rows)
    axes = axes or _fresh(3.4)
    for row, dashes in zip(rows, _DASHES, strict=False):
        percent = (np.arange(len(row.guide)) + 0.5) * 100 / len(row.guide)
        for _, name, difference in _rungs(row):
            if name != _GAIN:
                style = {"color": _GAPS[name], "label": f"{name}, {row.split}"}
                style |= {"linestyle": dashes, "marker": _marker(len(percent))}
                axes.plot(percent, np.sort(difference), **style)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set(xlim=(0, 100), xlabel="data, sorted by their gap (%)", ylabel="gap (nats)")
    axes.legend(loc="upper left")
    return _despined(axes)


@rc_context(_STYLE)
def gap_figure(rows: Sequence[GapRow]) -> Figure:
    """The whole story in two panels: `gaps` above `gap_curves`.

    Args:
        rows: one for each split.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: as in `gaps`.

    Example:
        >>> len(gap_figure([GapRow("test", [-14.0, -15.0], [-15.5, -16.0])]).axes)
        2
    """
    heights = [_height(_checked(rows)), 3.0]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=heights)
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
        rule = f"have the shape {shape} of `{first}`" if array.shape != shape else ""
        rule = rule or ("" if array.size and array.ndim in dims else "hold one entry per datum")
        if finite and not rule and not np.isfinite(array).all():
            rule = "be finite everywhere"
        if rule:
            raise ValueError(f"`{name}` must {rule}; got shape {array.shape}, {array}. {remedy}")
    return arrays


def _images(**named: Values) -> list[np.ndarray]:
    """Arrays `(n, H, W)`, `(n, H, W, 3)` or `(n, D)`."""
    kinds = "images (n, H, W), (n, 1, H, W), (n, 3, H, W) or vectors (n, D)"
    arrays = list(_arrays(named, f"Pass {kinds}.", dims=(2, 3, 4)).values())
    shape = arrays[0].shape
    if len(shape) < 4:
        return arrays
    if shape[1] not in (1, 3):
        raise ValueError(f"`{next(iter(named))}` must be {kinds}; got {shape}. Is n in front?")
    return [np.moveaxis(a, 1, -1) if shape[1] == 3 else a[:, 0] for a in arrays]


def _range(*arrays: np.ndarray) -> tuple[float, float]:
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))


def _stack(
    blocks: Sequence[tuple[str, np.ndarray]],
    scale: tuple[float, float],
    columns: int,
    group: int = 1,
) -> Figure:
    """Labelled blocks downwards, with space after each `group` of them."""
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1; got {columns}. The default is 10.")
    first = blocks[0][1]
    if first.ndim == 2:
        across, tall = _WIDTH - _LABEL, [min(max(0.12 * len(first), 1.0), 3.0)] * len(blocks)
    else:
        cell = min(1.5, (_WIDTH - _LABEL) / columns)
        across = cell * min(columns, len(first))
        cell *= first.shape[1] / first.shape[2]
        tall = [cell * -(-len(values) // columns) for _, values in blocks]
    spaces = [0.15 if i and i % group == 0 else 0.0 for i in range(len(blocks))]
    width, bottoms = _LABEL + across, np.cumsum(tall) + np.cumsum(spaces)
    figure = Figure(figsize=(width, bottoms[-1]))
    for (label, values), inches, bottom in zip(blocks, tall, bottoms, strict=True):
        box = (_LABEL / width, 1 - bottom / bottoms[-1], across / width, inches / bottoms[-1])
        _tile(figure.add_axes(box), label, values, scale, columns)
    return figure


def _tile(
    axes: Axes, label: str, values: np.ndarray, scale: tuple[float, float], columns: int
) -> None:
    if "noise" in label:
        top = np.abs(values).max() or 1.0
        scale = (-top, top)
    low, high = scale
    for i, image in enumerate(values if values.ndim > 2 else values[None]):
        row, column = divmod(i, columns)
        shown = (image - low) / (high - low) if image.ndim == 3 else image
        extent = (column + 0.03, column + 0.97, row + 0.97, row + 0.03)
        axes.imshow(shown, "gray", vmin=low, vmax=high, extent=extent, aspect="auto")
    axes.set(xlim=(0, min(columns, i + 1)), ylim=(row + 1, 0), xticks=[], yticks=[])
    label += "" if scale == (0, 1) else f"\n{low:.2g} to {high:.2g}".replace("-", "−")
    axes.set_ylabel(label, rotation=0, ha="right", va="center")
    _despined(axes, "left", "bottom")


def _limit(axes: Axes, curves: np.ndarray) -> None:
    """Cuts off what lies far below the bulk of every curve `(C, T)`, and says so."""
    curves = np.where(np.isfinite(curves), curves, np.nan)
    top = np.nanmax(curves)
    low = min(2 * np.nanquantile(curve, 0.25) - np.nanmax(curve) for curve in curves)
    below = (curves < low).any(axis=0).sum()
    if below:
        axes.set_ylim(low, top + 0.05 * (top - low))
        text = f"↓ {below} epochs lower, down to {np.nanmin(curves):.4g}".replace("-", "−")
        axes.text(0.01, 0.02, text, transform=axes.transAxes, color=_GREY, fontsize=9)


def _checked(rows: Sequence[GapRow]) -> list[GapRow]:
    """The rows, as float64 arrays."""
    if not rows:
        raise ValueError("`rows` must hold a GapRow for each split; got none.")
    return [_checked_row(row) for row in rows]


def _checked_row(row: GapRow) -> GapRow:
    if row.own is not None and row.own not in row.bounds:
        raise ValueError(
            f"`own` of '{row.split}' must be one of its `bounds`, {list(row.bounds)}; got "
            f"'{row.own}'. Use None for a guide that is not of one family."
        )
    named = {"log_evidence": row.log_evidence, "guide": row.guide, **row.bounds}
    arrays = _arrays(named, f"Pass values for each datum of '{row.split}', not their mean.")
    evidence, guide = arrays.pop("log_evidence"), arrays.pop("guide")
    return GapRow(row.split, evidence, guide, arrays, row.own)


def _rungs(row: GapRow) -> list[tuple[str, str, np.ndarray]]:
    """Label, name and differences `(n,)` of each gap, then of each other family's gain."""
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
    """Draws one split from `line` downwards and labels it in `ticks`; the next free line."""
    across, head, end = axes.get_yaxis_transform(), line, 0.0
    text = f"log p(x) = {_number(row.log_evidence)},  ELBO = {_number(row.guide)}  "
    text += f"(n = {len(row.guide)})"
    axes.text(0.01, line, text, transform=across, va="center", fontsize=9, color=_GREY)
    ticks[line] = row.split
    for label, name, difference in _rungs(row):
        line += 1.0
        mean, ticks[line] = difference.mean(), label
        style = {"xerr": _stderr(difference), "ecolor": "black", "label": _GAIN}
        if name == _GAIN:
            axes.errorbar(mean, line, fmt="D", color=_GREEN, **style)
        else:
            axes.barh(line, mean, left=end, height=0.8, color=_GAPS[name], label=name)
            axes.errorbar(end + mean, line, fmt="none", **style)
            end += mean
        axes.text(1.01, line, _number(difference), transform=across, va="center")
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


def _despined(axes: Axes, *also: str) -> Axes:
    axes.spines[["top", "right", *also]].set_visible(False)
    return axes
