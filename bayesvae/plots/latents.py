"""The picture of a latent space: where the prior puts its draws, and where the data are.

The aggregated posterior is the average of q(z | x_n) over the data. Prior and aggregated posterior
are one and the same where a model's marginals fit; where they part, the prior's draws decode to
what no datum taught the model ("ELBO surgery", Hoffman and Johnson, 2016).
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from bayesvae.plots import density
from bayesvae.plots.style import (
    BLUE,
    STYLE,
    Values,
    arrays_of,
    despined,
    fresh,
)

# Paul Tol's qualitative scheme: all kinds of colour vision keep ten of these apart.
_CLASSES = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#DDCC77", "#44AA99", "#AA4499")
_CLASSES += ("#999933", "#661100")
_SHADES = ("#E4E4E4", "#C4C4C4")


@rc_context(STYLE)
def latent_space(
    codes: Values,
    labels: Values | None = None,
    prior: Values | None = None,
    *,
    label_names: Sequence[str] = (),
    axes: Axes | None = None,
) -> Axes:
    """The aggregated posterior over the prior: what differs are holes and crowds.

    Shaded is what holds 50 % and 90 % of the prior's draws; lines hold as much of the codes. More
    than two latents are seen along the first two principal axes of the codes: clouds that are
    apart there are apart, clouds that overlap there may still be apart.

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
    labels = None if labels is None else _labels(labels, len(codes))
    names = _classes(labels, label_names)
    if codes.shape[1] == 1:
        if labels is not None and not names:
            raise ValueError(
                "Codes of one dimension need `labels` of at most ten classes; got "
                f"{len(np.unique(labels))} values. Bin them."
            )
        return _line(axes or fresh(3.4), codes[:, 0], labels, names, prior)
    axes = axes or fresh(6.4)
    codes, prior, words = _plane(codes, prior)
    axes.set(xlabel=words[0], ylabel=words[1])
    edge = density.edges(codes, *([] if prior is None else [prior]))
    handles = [] if prior is None else [_shaded(axes, prior, edge)]
    _scatter(axes, codes, labels, names)
    handles += [_outlined(axes, codes, edge)]
    axes.set(xlim=edge[0, [0, -1]], ylim=edge[1, [0, -1]])
    outside = sum((np.abs(codes - edge.mean(axis=1)) > np.ptp(edge, axis=1) / 2).any(axis=1))
    if outside:
        handles += [Line2D([], [], linestyle="", label=f"codes beyond the axes: {outside}")]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return despined(axes)


def _draws(name: str, values: Values, dim: int | None = None) -> np.ndarray:
    """``(N, d)``, at least two."""
    remedy = "Pass finite draws (N, d), one row for each."
    draws = arrays_of({name: values}, remedy, dims=(2,))[name]
    if dim not in (None, draws.shape[1]):
        raise ValueError(f"`{name}` must have the codes' {dim} columns; got {draws.shape[1]}.")
    if len(draws) < 2:
        raise ValueError(f"`{name}` must hold two draws at least; got {len(draws)}. {remedy}")
    return draws


def _labels(values: Values, count: int) -> np.ndarray:
    remedy = "Pass finite labels (N,), one for each code."
    labels = arrays_of({"labels": values}, remedy)["labels"]
    if len(labels) != count:
        raise ValueError(f"`labels` must be one for each of {count} codes; got {len(labels)}.")
    return labels


def _classes(labels: np.ndarray | None, names: Sequence[str]) -> dict[float, str]:
    """The names of up to ten whole numbers; none if the labels are something else."""
    values = np.array([]) if labels is None else np.unique(labels)
    if len(values) > len(_CLASSES) or (values != np.round(values)).any():
        return {}
    if len(names) and len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise ValueError(
            f"`label_names` must name each of the classes 0 to {values.max():.0f}; got "
            f"{len(names)} names. Number the classes from 0."
        )
    return {value: str(names[int(value)]) if len(names) else f"{value:.0f}" for value in values}


def _plane(
    codes: np.ndarray, prior: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Codes and prior in a plane, and what its axes are."""
    if codes.shape[1] == 2:
        return codes, prior, ["z1", "z2"]
    middle = codes.mean(axis=0)
    _, singular, axes = np.linalg.svd(codes - middle, full_matrices=False)
    shares = singular**2 / (singular**2).sum()
    words = [
        f"{name} principal axis of the codes ({share:.0%} of their variance)"
        for name, share in zip(("first", "second"), shares, strict=False)
    ]
    turned = [None if z is None else (z - middle) @ axes[:2].T for z in (codes, prior)]
    return *turned, words


def _shaded(axes: Axes, prior: np.ndarray, edge: np.ndarray) -> Patch:
    mass = density.smoothed(prior, edge)
    bounds = [*density.levels(mass, mass), np.inf]
    axes.contourf(*density.centres(edge), mass, bounds, colors=_SHADES, zorder=0)
    return Patch(color=_SHADES[1], label="prior p(z): regions of 50 % and 90 % of draws")


def _outlined(axes: Axes, codes: np.ndarray, edge: np.ndarray) -> Line2D:
    mass = density.smoothed(codes, edge)
    axes.contour(
        *density.centres(edge), mass, density.levels(mass, mass), colors="black", linewidths=1.2
    )
    return Line2D([], [], color="black", label="aggregated posterior: likewise")


def _scatter(
    axes: Axes, codes: np.ndarray, labels: np.ndarray | None, names: dict[float, str]
) -> None:
    """Points in random order, so that no class hides the others."""
    order = np.random.default_rng(0).permutation(len(codes))
    dots = {"s": np.clip(15_000 / len(codes), 1.5, 14), "linewidths": 0, "alpha": 0.6}
    x, y = codes[order].T
    if labels is None:
        axes.scatter(x, y, color=BLUE, **dots)
    elif not names:
        drawn = axes.scatter(x, y, c=labels[order], cmap="viridis", **dots)
        bar = axes.figure.colorbar(drawn, ax=axes, label="label")
        bar.solids.set_alpha(1)
    else:
        colours = dict(zip(names, _CLASSES, strict=False))
        axes.scatter(x, y, color=[colours[label] for label in labels[order]], **dots)
        for value, name in names.items():
            place = np.median(codes[labels == value], axis=0)
            axes.text(*place, name, **_written(colours[value]))


def _written(colour: str) -> dict[str, object]:
    """A class's name, legible over its points."""
    halo = [withStroke(linewidth=3.5, foreground="white")]
    middle = {"ha": "center", "va": "center"}
    return {"color": colour, "weight": "bold", "size": 14, "path_effects": halo} | middle


def _line(
    axes: Axes,
    codes: np.ndarray,
    labels: np.ndarray | None,
    names: dict[float, str],
    prior: np.ndarray | None,
) -> Axes:
    """One latent: a histogram of the codes, classes stacked, against the prior's."""
    both = codes if prior is None else np.concatenate([codes, prior[:, 0]])
    bins = np.histogram_bin_edges(both, bins=60)
    shares = {"aggregated posterior": codes}
    if names:
        shares = {name: codes[labels == value] for value, name in names.items()}
    weights = [np.full(len(part), 1 / len(codes) / np.diff(bins)[0]) for part in shares.values()]
    colours = _CLASSES[: len(names)] or [BLUE]
    axes.hist(
        list(shares.values()), bins, weights=weights, stacked=True, color=colours, label=[*shares]
    )
    if prior is not None:
        axes.hist(prior[:, 0], bins, density=True, histtype="step", color="black", label="prior")
    axes.set(xlabel="z1", ylabel="density")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6)
    return despined(axes)
