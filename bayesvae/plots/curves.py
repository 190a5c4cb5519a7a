"""The picture of a training run."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from bayesvae.plots.style import (
    BLUE,
    GREY,
    ORANGE,
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
    axes.plot(epoch[best], curve[best], "D", color="black", label=text)
    _limit(axes, np.stack(list(curves.values())))
    axes.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
    axes.set_xlim(epoch.min() - 1, epoch.max() + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")
    return despined(axes)


def _limit(axes: Axes, curves: np.ndarray) -> None:
    """Cuts off what lies far below the bulk of every curve ``(C, T)``, and says so."""
    curves = np.where(np.isfinite(curves), curves, np.nan)
    top = np.nanmax(curves)
    low = min(2 * np.nanquantile(curve, 0.25) - np.nanmax(curve) for curve in curves)
    below = (curves < low).any(axis=0).sum()
    if below:
        axes.set_ylim(low, top + 0.05 * (top - low))
        text = f"epochs below the axis: {below}, down to {np.nanmin(curves):.4g}"
        axes.set_title(text.replace("-", "−"), loc="left", color=GREY, fontsize=9)
