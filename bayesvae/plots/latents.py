"""The picture of a latent space: where the prior puts its draws, and where the data are.

The aggregated posterior is the average of q(z | x_n) over the data. Prior and aggregated posterior
are one and the same where a model's marginals fit; where they part, the prior's draws decode to
what no datum taught the model ("ELBO surgery", Hoffman and Johnson, 2016).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesvae.plots import density
from bayesvae.plots.style import BLUE, STYLE, Values, arrays_of, despined, fresh

# Paul Tol's qualitative scheme: all kinds of colour vision keep ten of these apart.
_CLASSES = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#DDCC77", "#44AA99", "#AA4499")
_CLASSES += ("#999933", "#661100")
_SHADES = ("#E4E4E4", "#C4C4C4")


class _Labels(NamedTuple):
    """Labels ``(N,)``, and the names of their values; none of those if they are no classes."""

    values: np.ndarray
    names: dict[float, str]

    @property
    def colours(self) -> dict[float, str]:
        return dict(zip(self.names, _CLASSES, strict=False))


@rc_context(STYLE)
def latent_space(
    codes: Values,
    labels: Values | None = None,
    prior: Values | None = None,
    *,
    label_names: Sequence[str] = (),
    axes: Axes | None = None,
) -> Axes:
    """The aggregated posterior over the prior: where do they differ?

    Shades hold 50 % and 90 % of the prior's draws, lines as much of the codes. A shade beyond the
    line is a hole: the prior draws there, and hardly a datum has its code there. More than two
    latents are seen along the first two principal axes of the codes, in which holes may be hidden.

    Args:
        codes: draws of q(z | x_n) ``(N, d)``, one or more for each datum. Not the means of q,
            which are less spread out than its draws.
        labels: ``(N,)``; up to ten whole numbers are classes, others are shown on a colour bar.
        prior: draws of p(z) ``(M, d)``; the more, the smoother; 5,000 are good.
        label_names: of the classes 0, 1, ..., in place of the numbers.
        axes: drawn on if given.

    Returns:
        The axes.

    Raises:
        ValueError: on another shape, values that are not finite, fewer than two codes, one latent
            with labels that are no classes, or too few names.

    Example:
        >>> import torch
        >>> axes = latent_space(torch.randn(500, 2), prior=2 * torch.randn(500, 2))
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('z1', 'z2')
    """
    codes = _draws("codes", codes)
    prior = None if prior is None else _draws("prior", prior, codes.shape[1])
    checked = None if labels is None else _labels(labels, label_names, len(codes))
    if codes.shape[1] == 1:
        return _line(axes or fresh(3.4), codes[:, 0], checked, prior)
    axes = axes or fresh(6.6)
    codes, prior, words = _plane(codes, prior)
    edge = density.edges(codes, *([] if prior is None else [prior]))
    handles = [] if prior is None else [_shaded(axes, prior, edge)]
    _scatter(axes, codes, checked, np.ptp(edge, axis=1))
    handles += [_outlined(axes, codes, edge)]
    axes.set(xlabel=words[0], ylabel=words[1], xlim=edge[0, [0, -1]], ylim=edge[1, [0, -1]])
    axes.set_aspect("equal")
    beyond = len(codes) - int(density.counted(codes, edge).sum())
    title = f"codes beyond the axes: {beyond}" if beyond else None
    note = {"title": title, "title_fontsize": 9, "alignment": "left"}
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, **note)
    return despined(axes)


def _draws(name: str, values: Values, dim: int | None = None) -> np.ndarray:
    """``(N, d)``, at least two."""
    remedy = "Pass finite draws (N, d), a row for each."
    draws = arrays_of({name: values}, remedy, dims=(2,))[name]
    if dim not in (None, draws.shape[1]):
        raise ValueError(f"`{name}` must have the codes' {dim} columns; got {draws.shape[1]}.")
    if len(draws) < 2:
        raise ValueError(f"`{name}` must hold two draws at least; got {len(draws)}. {remedy}")
    return draws


def _labels(labels: Values, names: Sequence[str], count: int) -> _Labels:
    """Up to ten whole numbers are classes."""
    remedy = "Pass finite labels (N,), one for each code."
    values = arrays_of({"labels": labels}, remedy)["labels"]
    if len(values) != count:
        raise ValueError(f"`labels` must be {count}, one for each code; got {len(values)}.")
    classes = np.unique(values)
    if len(classes) > len(_CLASSES) or (classes != classes.round()).any():
        return _Labels(values, {})
    if len(names) and not 0 <= classes.min() <= classes.max() < len(names):
        raise ValueError(
            f"`label_names` must name the classes {classes.min():.0f} to {classes.max():.0f}, "
            f"counted from 0; got {len(names)} names."
        )
    return _Labels(values, {c: str(names[int(c)]) if len(names) else f"{c:.0f}" for c in classes})


def _plane(
    codes: np.ndarray, prior: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Codes and prior in a plane, and what its axes are."""
    if codes.shape[1] == 2:
        return codes, prior, ["z1", "z2"]
    middle = codes.mean(axis=0)
    _, singular, axes = np.linalg.svd(codes - middle, full_matrices=False)
    shares = 100 * singular**2 / (singular**2).sum()
    words = [
        f"{name} principal axis of the codes ({share:.0f} % of their variance)"
        for name, share in zip(("first", "second"), shares, strict=False)
    ]
    turned = [None if z is None else (z - middle) @ axes[:2].T for z in (codes, prior)]
    return *turned, words


def _shaded(axes: Axes, prior: np.ndarray, edge: np.ndarray) -> Patch:
    places, smooth, rising = _regions(prior, edge)
    axes.contourf(*places, smooth, [*rising, np.inf], colors=_SHADES, zorder=0)
    return Patch(color=_SHADES[1], label="prior p(z): 50 %, 90 % of draws")


def _outlined(axes: Axes, codes: np.ndarray, edge: np.ndarray) -> Line2D:
    places, smooth, rising = _regions(codes, edge)
    axes.contour(*places, smooth, rising, colors="black", linewidths=1.3)
    return Line2D([], [], color="black", label="aggregated posterior: 50 %, 90 % of codes")


def _regions(points: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Middles of bins ``(2, bins)``, the density there, and the levels that hold the points."""
    smooth = density.smoothed(points, edge)
    held = density.counted(points, edge) / len(points)
    return density.centres(edge), smooth, density.levels(smooth, held)


def _scatter(axes: Axes, codes: np.ndarray, labels: _Labels | None, size: np.ndarray) -> None:
    """Points in random order, so that no class hides the others."""
    order = np.random.default_rng(0).permutation(len(codes))
    dots = {"s": np.clip(15_000 / len(codes), 2, 14), "linewidths": 0, "alpha": 0.6}
    x, y = codes[order].T
    if labels is None:
        axes.scatter(x, y, color=BLUE, **dots)
    elif not labels.names:
        drawn = axes.scatter(x, y, c=labels.values[order], cmap="viridis", **dots)
        axes.figure.colorbar(drawn, ax=axes, label="label").solids.set_alpha(1)
    else:
        axes.scatter(x, y, color=[labels.colours[v] for v in labels.values[order]], **dots)
        _name_classes(axes, codes, labels, size)


def _name_classes(axes: Axes, codes: np.ndarray, labels: _Labels, size: np.ndarray) -> None:
    """Writes names at the medians, or a little above or below where they would overlap."""
    medians = np.stack(
        [np.median(codes[labels.values == value], axis=0) for value in labels.names]
    )
    longest = max(map(len, labels.names.values()))
    places = _apart(medians, size * (0.03 + 0.018 * longest, 0.05))
    for place, (value, name) in zip(places, labels.names.items(), strict=True):
        colour = labels.colours[value]
        dark = np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) < 0.5
        box = {"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "white"}
        look = {"color": "white" if dark else "black", "weight": "bold", "bbox": box}
        axes.text(*place, name, ha="center", va="center", zorder=3, **look)


def _apart(places: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Places ``(C, 2)`` moved up or down until each has its room ``(2,)``."""
    order = np.argsort(places[:, 1])
    above = np.sign(np.argsort(order)[:, None] - np.argsort(order))
    for _ in range(500):
        lack = room - abs(places[:, None] - places)
        crowded = (lack > 1e-6 * room).all(axis=-1) & (above != 0)
        places = places + [0, 0.2] * (above * crowded * lack[..., 1]).sum(axis=1)[:, None]
    return places


def _line(axes: Axes, codes: np.ndarray, labels: _Labels | None, prior: np.ndarray | None) -> Axes:
    """One latent: a histogram of the codes, classes stacked, against the prior's."""
    if labels is not None and not labels.names:
        raise ValueError(
            "Codes of one dimension need `labels` of at most ten classes, whole numbers; got "
            f"{len(np.unique(labels.values))} values. Bin them."
        )
    both = codes if prior is None else np.concatenate([codes, prior[:, 0]])
    bins = np.histogram_bin_edges(both, bins=60)
    parts = {"aggregated posterior": (codes, BLUE)}
    if labels is not None:
        parts = {
            labels.names[value]: (codes[labels.values == value], colour)
            for value, colour in labels.colours.items()
        }
    values, colours = zip(*parts.values(), strict=True)
    weights = [np.full(len(part), 1 / len(codes) / np.diff(bins)[0]) for part in values]
    look = {"stacked": True, "color": colours, "label": [*parts]}
    axes.hist(values, bins, weights=weights, **look)
    if prior is not None:
        line = {"histtype": "step", "color": "black", "linewidth": 1.3}
        axes.hist(prior[:, 0], bins, density=True, label="prior p(z)", **line)
    axes.set(xlabel="z1", ylabel="density (bars: aggregated posterior)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6)
    return despined(axes)
