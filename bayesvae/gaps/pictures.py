"""Pictures of a comparison for which the pair is run again: its worst data, its posteriors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesvae import generate, plots
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.distributions import mean_of
from bayesvae.core.evaluation import conditioned, evaluating
from bayesvae.core.pair import Pair, on_device_of
from bayesvae.gaps.split_results import Split
from bayesvae.optima import Posteriors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 500
_POINTS = 301
_DRAWS = 200
_ROOM = 2.0  # by how many standard deviations a grid goes beyond the farthest of the draws
_SHOWN = (1.0, 0.9, 0.5, 0.0)  # quantiles of the gap, of data whose posteriors are drawn
_MOST = 5  # q's beside the guide


def worst_data(pair: Pair, split: Split, names: Sequence[str] = ()) -> Figure | None:
    """The data with the largest gaps, beside E[x | z] at their codes under the guide and under q*.

    A code is the mean of q; of a q without a known one, such as a flow, it is a draw. q* is that
    of the guide's own family, or else of the widest that was fitted. Latents that all data share
    are at the means of their guide.

    Args:
        pair: the pair that was compared.
        split: of its comparison.
        names: of a vector's entries.

    Returns:
        The figure; None if no q was kept, or the data are nothing to be drawn.

    Raises:
        ValueError: if the pair's codes or the means of its likelihood are not to be had.

    Example:
        >>> from bayesvae import compare
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> split = compare(pair, torch.randn(4, 3), progress=False).splits["train"]
        >>> len(worst_data(pair, split).axes)
        4
    """
    kept = split.posteriors
    if kept is None or not plots.drawable(kept.x.shape[1:]):
        return None
    family = split.own or list(split.bounds)[-1]
    means, best = [], []
    for part in torch.arange(len(kept.x)).split(_AT_ONCE):
        data = kept.x[part], kept.index[part]
        means.append(generate.reconstructions(pair, data))
        best.append(generate.reconstructions(pair, data, _codes(pair, kept, family, part)))
    gap, evidence = split.inference_gap, split.log_evidence.value
    return plots.worst_data(kept.x, torch.cat(means), gap, evidence, torch.cat(best), names=names)


def _codes(pair: Pair, kept: Posteriors, name: str, data: Tensor) -> dict[str, Tensor]:
    """The latents of data at the mean of a q, or at a draw, by site ``(n, *event)``."""
    family, rows = kept.members[name]
    q = family(rows[data])
    mean = mean_of(q)
    u = kept.loc[data] + kept.scale[data] * (q.sample() if mean is None else mean)
    return _latents(pair, kept, u, data)


def _latents(pair: Pair, kept: Posteriors, u: Tensor, data: Tensor) -> dict[str, Tensor]:
    """The latents at u ``(n, D)``."""
    with evaluating(pair):
        x, index, u = on_device_of(pair, kept.x[data], kept.index[data], u)
        model, guide, _ = conditioned(pair, x, index)
        found = Coordinates(model, guide, x, index).latents(u[None], x, index)
    return {name: value[0] for name, value in found.items()}


def posterior_panels(pair: Pair, split: Split) -> Figure | None:
    """The true posteriors of four data under the guide and under every q that was compared.

    They are the datum with the largest gap, the one that a tenth exceed, the median one, and the
    one with the smallest.

    Args:
        pair: the pair that was compared.
        split: of its comparison.

    Returns:
        The figure; None if no q was kept, or the pair has not one latent of two real entries.

    Example:
        >>> from bayesvae import compare
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :2], torch.zeros(3), 1.0))
        >>> split = compare(pair, torch.randn(4, 3), progress=False).splits["train"]
        >>> [axes.get_title() for axes in posterior_panels(pair, split).axes[:3]]
        ['guide', 'Normal q*', 'MultivariateNormal q*']
    """
    kept = split.posteriors
    if kept is None or kept.loc.shape[1] != 2 or not _plane(pair, kept):
        return None
    gap = split.inference_gap
    order = gap.argsort()
    data = torch.stack([order[round(share * (len(order) - 1))] for share in _SHOWN]).unique()
    data = data[gap[data].argsort(descending=True)]
    labels = _labels(split)
    others = {label: _log_density(kept, name, data) for name, label in labels.items()}
    first, second = _grid(kept, labels, data)
    found = generate.posterior_grid(pair, (kept.x[data], kept.index[data]), first, second, others)
    titles = [f"datum {i}, gap {gap[i]:.2f}".replace("-", "−") for i in data.tolist()]
    return plots.posterior_panels(first, second, found.log_joint, found.log_guides, titles=titles)


def _plane(pair: Pair, kept: Posteriors) -> bool:
    """Whether u is one latent of two entries, as it is."""
    one = torch.zeros(1, dtype=torch.long)
    u = kept.loc[one]
    latents = [value.cpu() for value in _latents(pair, kept, u, one).values()]
    return len(latents) == 1 and latents[0].shape == u.shape and torch.equal(latents[0], u)


def _labels(split: Split) -> dict[str, str]:
    """What members of ``split.posteriors`` are called in a figure, the narrowest first."""
    labels = {name: f"{name} q*" for name in split.bounds}
    semi = [name for name in split.posteriors.members if name not in {"guide", *labels}]
    return dict(list((labels | {name: name for name in semi[-1:]}).items())[:_MOST])


def _log_density(kept: Posteriors, name: str, data: Tensor) -> Callable[[Tensor], Tensor]:
    q = kept.q(name, data)
    return lambda z: q.log_prob(z.cpu())


def _grid(kept: Posteriors, names: Iterable[str], data: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of a grid that holds draws of every q of data, and room beside them."""
    guide = torch.distributions.Normal(kept.loc[data], kept.scale[data])
    draws = torch.cat(
        [q.sample((_DRAWS,)) for q in (guide, *(kept.q(name, data) for name in names))], 1
    )
    room = _ROOM * draws.std(0).amax(0)
    low, high = draws.amin((0, 1)) - room, draws.amax((0, 1)) + room
    first, second = (
        torch.linspace(*ends, _POINTS) for ends in zip(low.tolist(), high.tolist(), strict=True)
    )
    return first, second
