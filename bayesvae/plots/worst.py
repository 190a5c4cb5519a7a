"""The data whose guide loses most, beside what is reconstructed of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesvae.plots.images import events_of, range_of, range_words, tile
from bayesvae.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    WIDTH,
    Values,
    arrays_of,
    despined,
    fresh,
    multiples,
    names_of,
    number,
    shortened,
)

_LOOKS: Mapping[str, dict] = {
    "datum": {"color": "black", "marker": "o", "markersize": 3.5, "linewidth": 0.6},
    "guide": {"color": ORANGE, "marker": "x", "markersize": 4, "linewidth": 1.3},
    "q*": {"color": BLUE, "marker": "+", "markersize": 5, "linewidth": 1.3, "linestyle": "--"},
}
_CAPTION, _BETWEEN = 1.55, 0.3  # in units of an image's width
_NAMED = 20


@rc_context(STYLE)
def worst_data(
    originals: Values,
    means: Values,
    gaps: Values,
    log_evidence: Values,
    best_means: Values | None = None,
    *,
    count: int = 10,
    names: Sequence[str] = (),
) -> Figure:
    r"""The data with the largest gaps, from the worst on, beside their reconstructions.

    Where a reconstruction under q* is right and the guide's is wrong, the encoder is to blame;
    where both are wrong the model does not know such data. Vectors are drawn as profiles over
    their entries, each in standard deviations from its mean over all data given.

    Args:
        originals: all N data, images or vectors of a shape that ``samples`` takes.
        means: the likelihood's mean, given the guide's code of each; same shape.
        gaps: log p(x) - ELBO of each, ``(N,)`` in nats.
        log_evidence: log p(x) of each, ``(N,)`` in nats.
        best_means: the likelihood's mean, given the code of each under its own optimum q*.
        count: how many to show.
        names: of a vector's entries; their numbers from 1 if none.

    Returns:
        A figure: of images one axes, of vectors one for each datum. Captions give a datum's place
        among the originals, from 0.

    Raises:
        ValueError: on other shapes or lengths, values that are not finite, or count below 1.

    Example:
        >>> import torch
        >>> x = torch.rand(50, 8, 8)
        >>> figure = worst_data(x, x.sqrt(), torch.arange(50.0), -torch.ones(50), count=2)
        >>> figure.axes[0].texts[0].get_text()
        'datum 49\ngap 49.00 nats\nlog p(x) −1.00'
    """
    named = {"originals": originals, "means": means}
    named |= {} if best_means is None else {"best_means": best_means}
    shown = dict(zip(_LOOKS, events_of("N", **named), strict=False))
    size = len(shown["datum"])
    estimates = {"gaps": gaps, "log_evidence": log_evidence}
    gap, evidence = arrays_of(estimates, "Pass one finite value for each datum.").values()
    if len(gap) != size:
        raise ValueError(f"`gaps` must be {size}, one for each datum; got {len(gap)}.")
    if count < 1:
        raise ValueError(f"`count` must be at least 1; got {count}. The default is 10.")
    worst = np.argsort(-gap, kind="stable")[:count]
    words = [_caption(place, gap[place], evidence[place]) for place in worst]
    if shown["datum"].ndim == 2:
        return _profiles(shown, worst, words, names)
    return _images({name: values[worst] for name, values in shown.items()}, words)


def _caption(place: int, gap: float, log_evidence: float) -> list[str]:
    numbers = number(gap, ".2f"), number(log_evidence, ".2f")
    return [f"datum {place}", f"gap {numbers[0]} nats", f"log p(x) {numbers[1]}"]


def _images(shown: Mapping[str, np.ndarray], captions: Sequence[Sequence[str]]) -> Figure:
    """A row for each datum, in two blocks if there are many, captions at the right of each."""
    datum, *others = shown.values()
    scale, count = range_of(datum, *others), len(datum)
    blocks = 1 if count <= 5 else 2
    rows, tall = -(-count // blocks), datum.shape[1] / datum.shape[2]
    across, down = len(shown) + _CAPTION + _BETWEEN, tall + 0.08
    axes = fresh(1.0)
    for i, words in enumerate(captions):
        block, row = divmod(i, rows)
        left, top = block * across, row * down
        for j, values in enumerate(shown.values()):
            tile(axes, values[i], scale, (left + j + 0.03, left + j + 0.97, top + tall, top))
        where = {"va": "center", "fontsize": 9, "linespacing": 1.4}
        axes.text(left + len(shown) + 0.08, top + tall / 2, "\n".join(words), **where)
    total = blocks * across - _BETWEEN
    axes.set(xlim=(0, total), ylim=(rows * down, 0), aspect="equal", yticks=[])
    heads = [(b * across + j + 0.5, name) for b in range(blocks) for j, name in enumerate(shown)]
    axes.xaxis.tick_top()
    axes.set_xticks(*zip(*heads, strict=True))
    axes.tick_params(axis="x", length=0)
    note = range_words(scale, ", ")
    axes.set_title(note, y=0, pad=-14, loc="left", fontsize=9, color=GREY)
    unit = min(1.2, WIDTH / total)
    axes.figure.set_size_inches(unit * total, unit * rows * down + 0.35 + 0.2 * bool(note))
    return despined(axes, "left", "bottom").figure


def _profiles(
    shown: Mapping[str, np.ndarray],
    worst: np.ndarray,
    captions: Sequence[Sequence[str]],
    names: Sequence[str],
) -> Figure:
    """A panel for each datum: its entries beside the reconstructions', standardised."""
    datum = shown["datum"]
    loc, scale = datum.mean(axis=0), datum.std(axis=0)
    scale = np.where(scale > 1e-6 * abs(loc), scale, np.maximum(abs(loc), 1))
    entries = [shortened(name) for name in names_of("names", names, datum.shape[1], "")]
    panels = multiples(len(worst), 2, 1.5, above=0.5 + 0.06 * max(map(len, entries)))
    for i, (axes, place, words) in enumerate(zip(panels, worst, captions, strict=True)):
        for name, values in shown.items():
            line = (values[place] - loc) / scale
            look = _LOOKS[name] if len(line) <= 60 else _LOOKS[name] | {"marker": ""}
            axes.plot(np.arange(len(line)) + 1, line, label=name, **look)
        axes.set_title(",  ".join(words), loc="left", fontsize=9)
        _entries(axes, entries if i + 2 >= len(worst) else None, len(entries))
    figure = panels[0].figure
    title = "entries in standard deviations from their means over all data"
    style = {"title": title, "title_fontsize": 9, "alignment": "left", "ncols": 3}
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", **style)
    return figure


def _entries(axes: Axes, names: Sequence[str] | None, count: int) -> None:
    """The entries along the x-axis, named if they are few."""
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_xlim(0.5, count + 0.5)
    if count <= _NAMED:
        long = names is not None and sum(map(len, names)) > 40
        turn = {"rotation": 90} if long else {}
        axes.set_xticks(np.arange(count) + 1, names or [""] * count, fontsize=8, **turn)
    else:
        axes.tick_params(axis="x", labelbottom=names is not None)
        axes.set_xlabel("" if names is None else "entry of x", fontsize=9)
    despined(axes)
