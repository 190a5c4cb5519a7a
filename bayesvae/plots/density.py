"""Where a density has its mass: densities of draws, and the contours that hold a share of it.

The smallest region that holds a mass m is that of all points whose density exceeds some level;
its edge is the contour at that level ("Computing and Graphing Highest Density Regions", Hyndman,
1996).

A histogram blurred with a Gaussian is a kernel density estimate, up to the width of its bins.
Scott's bandwidth suits one normal cloud and fills the gaps between several, so of some shares of
it the one is taken that makes draws likeliest, each under the density of all the others.
"""

from collections.abc import Sequence

import numpy as np

MASSES = (0.9, 0.5)
_BINS = 160
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25)


def levels(density: np.ndarray, mass: np.ndarray, masses: Sequence[float] = MASSES) -> list[float]:
    """Of each mass that the cells reach, the level above which the density holds it.

    Args:
        density: of the cells of a grid.
        mass: of each cell, of which all together have at most 1.
        masses: falling.

    Returns:
        Rising levels below the highest density, without those of masses beyond the grid.
    """
    order = np.argsort(density, axis=None)[::-1]
    held, falling = np.cumsum(mass.ravel()[order]), density.ravel()[order]
    found = [np.interp(m, held, falling) for m in masses if m <= held[-1]]
    return sorted({min(level, 0.99 * falling[0]) for level in found})


def edges(*clouds: np.ndarray) -> np.ndarray:
    """Edges ``(2, bins + 1)`` of a square around all but the farthest of points ``(N, 2)``."""
    ends = np.stack([np.quantile(cloud, (0.002, 0.998), axis=0) for cloud in clouds])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    middle, half = (low + high) / 2, 0.65 * (high - low).max() + 1e-6
    return np.linspace(middle - half, middle + half, _BINS + 1, axis=-1)


def centres(edge: np.ndarray) -> np.ndarray:
    """The middles ``(..., bins)`` of edges ``(..., bins + 1)``."""
    return (edge[..., 1:] + edge[..., :-1]) / 2


def counted(points: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """How many of points ``(N, 2)`` are in each bin ``(bins, bins)``, second coordinate first."""
    return np.histogram2d(points[:, 1], points[:, 0], bins=edge[::-1])[0]


def smoothed(points: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """The share ``(bins, bins)`` of points ``(N, 2)`` in each bin, second coordinate first."""
    counts = counted(points, edge)
    scott = points.std(axis=0) * len(points) ** (-1 / 6)
    blurs = [_blurred(counts, edge, share * scott) for share in _SHARES]
    return max(blurs, key=lambda blur: blur[1])[0] / len(points)


def _blurred(
    counts: np.ndarray, edge: np.ndarray, bandwidth: np.ndarray
) -> tuple[np.ndarray, float]:
    """Blurred counts, and the log-likelihood of the points, each under all the others."""
    kernels = []
    for line, width in zip(edge, bandwidth, strict=True):
        middle = centres(line)
        scaled = (middle[:, None] - middle) / max(width, line[1] - line[0])
        kernel = np.exp(-0.5 * scaled**2)
        kernels.append(kernel / kernel.sum(axis=0))
    first, second = kernels
    blurred = second @ counts @ first.T
    others = blurred - np.outer(second.diagonal(), first.diagonal())
    # A thousandth of a uniform density keeps single outliers from deciding.
    uniform = 1e-3 * counts.mean()
    return blurred, float((counts * np.log(np.maximum(others, 0) + uniform)).sum())
