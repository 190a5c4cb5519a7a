"""Curves: a bound over training, a decoded mean along paths between codes."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from bayesvae.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    Values,
    arrays_of,
    despined,
    fresh,
    marker,
)


@rc_context(STYLE)
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
    curves = arrays_of(named, "Pass one value for each epoch, NaN if not evaluated.", finite=False)
    epoch = curves.pop("epochs")
    axes = axes or fresh(3.4)
    for colour, (name, curve) in zip((BLUE, ORANGE), curves.items(), strict=False):
        seen = np.isfinite(curve)
        if not seen.any():
            raise ValueError(f"`{name}` must have a finite value; got {curve}. Did it diverge?")
        axes.plot(epoch[seen], curve[seen], color=colour, marker=marker(seen.sum()), label=name)
    best = np.argmax(np.where(seen, curve, -np.inf))
    text = f"best: {curve[best]:.2f}, epoch {epoch[best]:.0f}".replace("-", "−")
    axes.plot(epoch[best], curve[best], "D", color="black", fillstyle="none", label=text)
    _limit(axes, np.stack(list(curves.values())))
    axes.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
    margin = 0.02 * np.ptp(epoch) + 0.5
    axes.set_xlim(epoch.min() - margin, epoch.max() + margin)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(epoch) == 1:
        axes.set_xticks(epoch)
    axes.legend(loc="best")
    return despined(axes)


@rc_context(STYLE)
def path_changes(changes: Mapping[str, Values], *, axes: Axes | None = None) -> Axes:
    """How far the decoded mean moves at each step along straight paths between codes.

    Of each model the median over paths, in a band from the 10th to the 90th percentile. A decoder
    that is smooth between the data moves by even steps; peaks are borders that a path crosses.

    Args:
        changes: by model ``(paths, steps)``: the distance between the decoded means of two
            neighbouring points of a path, in the units of x.
        axes: drawn on if given.

    Returns:
        The axes.

    Raises:
        ValueError: if there are no models or more than four, on another shape, or values that are
            not finite.

    Example:
        >>> import torch
        >>> axes = path_changes({"VAE": torch.rand(20, 10), "autoencoder": torch.rand(20, 10)})
        >>> axes.get_legend_handles_labels()[1]
        ['VAE', 'autoencoder']
    """
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    if not 0 < len(changes) <= len(colours):
        raise ValueError(f"`changes` must hold one to four models; got {len(changes)}.")
    axes = axes or fresh(3.4)
    for colour, dashes, (name, values) in zip(colours, DASHES, changes.items(), strict=False):
        label = f"changes['{name}']"
        moved = arrays_of({label: values}, "Pass finite (paths, steps).", dims=(2,))[label]
        low, middle, high = np.quantile(moved, (0.1, 0.5, 0.9), axis=0)
        place = (np.arange(moved.shape[1]) + 0.5) / moved.shape[1]
        axes.fill_between(place, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(place, middle, color=colour, linestyle=dashes, label=name)
    axes.set(xlim=(0, 1), ylim=(0, None), ylabel="change of the decoded mean per step")
    axes.set_xlabel("position on the path from one code to another")
    title = "line: median over paths; band: 10 % to 90 % of paths"
    words = {"title": title, "title_fontsize": 9, "alignment": "left"}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, **words)
    return despined(axes)


def bulk(curves: Iterable[np.ndarray]) -> float:
    """The least value that every curve ``(T,)`` is shown down to, NaN left out.

    From its best value at least twice as far down as its lower quartile lies.
    """
    return min(2 * np.nanquantile(curve, 0.25) - np.nanmax(curve) for curve in curves)


def _limit(axes: Axes, curves: np.ndarray) -> None:
    """Cuts off what lies far below the bulk of every curve ``(C, T)``, and says so."""
    curves = np.where(np.isfinite(curves), curves, np.nan)
    top, low = np.nanmax(curves), bulk(curves)
    below = (curves < low).any(axis=0).sum()
    if below:
        axes.set_ylim(low, top + 0.05 * (top - low))
        text = f"epochs below the axis: {below}, down to {np.nanmin(curves):.4g}"
        axes.set_title(text.replace("-", "−"), loc="left", color=GREY, fontsize=9)
