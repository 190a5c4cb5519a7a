"""The picture of a guide's calibration: where known latents lie among its draws.

A rank r of a known latent among L draws of a guide that is right is uniform on 0 ... L.  A guide
too narrow has too many ranks at both ends, so that the empirical distribution function is first
too large and then too small; one too wide the other way around; one that is shifted is off to one
side throughout.
"""

from collections.abc import Mapping
from types import MappingProxyType
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
    shortened,
)

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_BAND = {"color": "#DDDDDD", "linewidth": 0}
# The two often lie on one another: the second shows what it covers.
_OF_DENSITIES = (
    {"color": "#888888", "linewidth": 2.5, "zorder": 1.9},
    {"color": "black", "linestyle": (0, (5, 2)), "linewidth": 1.2, "zorder": 2.1},
)
_NORMAL = 1.96  # standard errors at either side hold 95 % of what chance does
_BINS = 20
_TRUSTED = 0.7
_TAILS = np.linspace(-0.5, 1.5, 21)


class RankCurves(NamedTuple):
    """What is drawn of the ranks of n known latents among L draws of a guide.

    Attributes:
        shares: places at which distribution functions are given, ``(K,)`` between 0 and 1.
        low: the least difference of an empirical function from the uniform one to be expected by
            chance, ``(K,)``.
        high: the greatest.
        latents: these differences by latent, ``(K,)``.
        densities: likewise of log p(x, z) and log q(z | x).
        levels: of credible sets, ``(M,)`` between 0 and 1.
        coverage: the share of latents inside such intervals, ``(M,)`` by name; these at most four
            are drawn in colour.
        set_coverage: likewise of all latents together in the sets of highest q, ``(M,)``.
        ranks: of the latents in colour, ``(n,)`` in 0 ... L.
        draws: L.
        k_hat: of each datum's importance weights, ``(n,)``; may be infinite.
        verdicts: words for the legend, by latent or density.
    """

    shares: Values
    low: Values
    high: Values
    latents: Mapping[str, Values]
    densities: Mapping[str, Values]
    levels: Values
    coverage: Mapping[str, Values]
    set_coverage: Values
    ranks: Mapping[str, Values]
    draws: int
    k_hat: Values
    verdicts: Mapping[str, str] = MappingProxyType({})


@rc_context(STYLE)
def calibration_figure(curves: RankCurves) -> Figure:
    """Ranks, coverage, Q(truth) and k-hat: four views of whether a guide is the posterior.

    Lines are in the grey bands if the guide is right, but for chance.

    Args:
        curves: what is drawn.

    Returns:
        A figure with four axes.

    Raises:
        ValueError: if arrays have other lengths than they should, or more than four latents are
            in colour.

    Example:
        >>> import torch
        >>> line, ranks = torch.linspace(0.1, 0.9, 9), torch.arange(1000) % 100
        >>> flat = torch.zeros(9)
        >>> curves = RankCurves(line, flat - 0.1, flat + 0.1, {"z": flat}, {}, line, {"z": line},
        ...                     line, {"z": ranks}, 99, torch.zeros(1000))
        >>> len(calibration_figure(curves).axes)
        4
    """
    curves = _checked(curves)
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    looks = {
        name: {"color": colour, "linestyle": dashes}
        for name, colour, dashes in zip(curves.coverage, _COLOURS, DASHES, strict=False)
    }
    _functions(first, curves, looks)
    _coverage(second, curves, looks)
    _histograms(third, curves, looks)
    _tails(fourth, curves.k_hat)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _checked(curves: RankCurves) -> RankCurves:
    """The curves, as float64 arrays."""
    if not 0 < len(curves.coverage) <= len(_COLOURS):
        raise ValueError(
            f"`coverage` must hold one to {len(_COLOURS)} latents; got {len(curves.coverage)}. "
            "Choose the worst."
        )
    along = {"shares": curves.shares, "low": curves.low, "high": curves.high}
    along |= _named("latents", curves.latents) | _named("densities", curves.densities)
    along = arrays_of(along, "Pass one finite value for each of `shares`.")
    held = {"levels": curves.levels, "set_coverage": curves.set_coverage}
    held |= _named("coverage", curves.coverage)
    held = arrays_of(held, "Pass one finite value for each of `levels`.")
    data = arrays_of(_named("ranks", curves.ranks), "Pass one finite rank for each datum.")
    tails = arrays_of({"k_hat": curves.k_hat}, "Pass one for each datum.", finite=False)

    def back(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: arrays[f"{name}['{key}']"] for key in getattr(curves, name)}

    return RankCurves(
        *(along[name] for name in ("shares", "low", "high")),
        back("latents", along),
        back("densities", along),
        held["levels"],
        back("coverage", held),
        held["set_coverage"],
        back("ranks", data),
        curves.draws,
        tails["k_hat"],
        curves.verdicts,
    )


def _named(name: str, values: Mapping[str, Values]) -> dict[str, Values]:
    return {f"{name}['{key}']": each for key, each in values.items()}


def _functions(axes: Axes, curves: RankCurves, looks: Mapping[str, dict]) -> None:
    """The ranks' empirical distribution functions less the uniform one."""
    places = np.concatenate([[0], curves.shares, [1]])

    def closed(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], values, [0]])

    axes.fill_between(
        places, closed(curves.low), closed(curves.high), label="95 % by chance", **_BAND
    )
    others = [line for name, line in curves.latents.items() if name not in looks]
    for number, line in enumerate(others):
        label = None if number else f"{len(others)} other latent{'s'[: len(others) - 1]}"
        axes.plot(places, closed(line), color="#999999", linewidth=0.6, label=label)
    for name, look in looks.items():
        axes.plot(places, closed(curves.latents[name]), label=_labelled(name, curves), **look)
    for (name, line), look in zip(curves.densities.items(), _OF_DENSITIES, strict=False):
        axes.plot(places, closed(line), label=_labelled(name, curves), **look)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set(xlim=(0, 1), xlabel="rank of the truth among the draws, as a share")
    axes.set_ylabel("share of ranks below,\nless that of uniform ranks")
    _headed(axes, "Ranks: inside the band if the guide is right")


def _labelled(name: str, curves: RankCurves) -> str:
    words = curves.verdicts.get(name)
    return f"{shortened(name)}: {words}" if words else shortened(name)


def _coverage(axes: Axes, curves: RankCurves, looks: Mapping[str, dict]) -> None:
    """How often credible sets hold the truth, over how often they should."""
    level, n = 100 * curves.levels, len(curves.k_hat)
    chance = _NORMAL * np.sqrt(level * (100 - level) / n)
    axes.fill_between(level, -chance, chance, **_BAND)
    for name, look in looks.items():
        axes.plot(level, 100 * curves.coverage[name] - level, **look)
    axes.plot(level, 100 * curves.set_coverage - level, **_OF_DENSITIES[1])
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    note = "black dashes: sets of highest q(z | x)"
    axes.set(xlim=(0, 100), xlabel=f"stated probability of a credible set (%)\n{note}")
    axes.set_ylabel("truths inside, less stated\n(percentage points)")
    _headed(axes, "Credible sets: below the band if too narrow")


def _histograms(axes: Axes, curves: RankCurves, looks: Mapping[str, dict]) -> None:
    """Q(truth) of the latents in colour."""
    values = curves.draws + 1
    edges = np.unique(np.linspace(0, values, min(_BINS, values) + 1).round()) / values
    share = np.diff(edges)
    chance = _NORMAL * np.sqrt((1 - share) / (len(curves.k_hat) * share))
    axes.stairs(1 + chance, edges, baseline=1 - chance, fill=True, **_BAND)
    for name, look in looks.items():
        heights, _ = np.histogram((curves.ranks[name] + 0.5) / values, edges, density=True)
        axes.stairs(heights, edges, baseline=None, linewidth=1.5, **look)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="Q(truth), the guide's probability of less")
    axes.set_ylabel("density over data")
    _headed(axes, "Q(truth): lopsided if the guide is shifted")


def _tails(axes: Axes, k_hat: np.ndarray) -> None:
    """How heavy the tails of the importance weights are, datum by datum."""
    margin = 1e-6
    inside = np.clip(k_hat, _TAILS[0] + margin, _TAILS[-1] - margin)
    counts, _ = np.histogram(inside, _TAILS)
    colours = np.where(_TAILS[:-1] > _TRUSTED - margin, ORANGE, BLUE)
    height = 100 * counts / len(k_hat)
    axes.bar(_TAILS[:-1], height, np.diff(_TAILS), align="edge", color=colours)
    axes.axvline(_TRUSTED, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xticks([-0.5, 0, 0.7, 1, 1.5], ["≤ −0.5", "0", "0.7", "1", "≥ 1.5"])
    axes.set(xlabel="k-hat of a datum's importance weights", ylabel="data (%)")
    above = 100 * np.mean(k_hat > _TRUSTED)
    _headed(axes, f"Weights: k-hat above {_TRUSTED} for {above:.0f} % of the data")


def _headed(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    despined(axes)
