"""The bracket of each datum: how far its two bounds of log p(x) are apart."""

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
    mean_in_words,
)


@rc_context(STYLE)
def bracketed(lower: Values, width: Values, stderr: Values, axes: Axes | None = None) -> Axes:
    """The width of each datum's bracket of log p(x), against its lower end.

    Bars are one standard error long to either side, of chains; the mean's is over data. Widths
    below zero are noise.
    Where points climb to one side, the data there are harder to bracket.

    Args:
        lower: bounds from below, ``(N,)``, nats.
        width: upper minus lower, ``(N,)``.
        stderr: standard errors of the widths, ``(N,)``; NaN where one chain has none.
        axes: drawn on if given.

    Returns:
        The axes.

    Raises:
        ValueError: if lengths differ, or lower ends or widths are not finite.

    Example:
        >>> axes = bracketed([-90.0, -80.0], [0.2, 0.0], [0.1, 0.1])
        >>> axes.get_legend_handles_labels()[1]
        ['mean 0.10 ± 0.10 nats', 'one datum ± standard error']
    """
    remedy = "Pass one finite value for each datum."
    found = arrays_of({"lower": lower, "width": width}, remedy)
    more = {"lower": lower, "stderr": stderr}
    bars = np.nan_to_num(arrays_of(more, "Pass one for each datum.", finite=False)["stderr"])
    axes = axes or fresh(3.4)
    style = {"fmt": "o", "color": BLUE, "ecolor": BLUE, "markersize": 3, "elinewidth": 0.8}
    label = "one datum ± standard error"
    axes.errorbar(found["lower"], found["width"], bars, label=label, alpha=0.7, **style)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    label = f"mean {mean_in_words(found['width'])} nats"
    axes.axhline(found["width"].mean(), color=ORANGE, label=label)
    axes.set(xlabel="lower bound of log p(x) (nats)", ylabel="upper minus lower (nats)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return despined(axes)
