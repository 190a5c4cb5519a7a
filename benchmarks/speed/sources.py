"""Data: real digits and MNIST, and where MNIST is not at hand, made-up data of its shape."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from bayesvae import data
from benchmarks.speed.cases import Case


class Source(NamedTuple):
    """Grey levels in 0 ... 255, a row a datum.

    Attributes:
        name: what to call it.
        train: ``(N, D)`` bytes.
        test: ``(M, D)`` bytes.
        made_up: whether these are no real data.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    made_up: bool = False


def digits() -> Source:
    """scikit-learn's digits."""
    splits = data.digits()
    return Source("digits", _bytes(splits.train), _bytes(splits.test))


@lru_cache
def mnist(root: str | None = None) -> Source:
    """MNIST from ``root``, else BAYESVAE_DATA, else the cache or the network; else made up."""
    try:
        splits = data.mnist(root)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"MNIST cannot be read ({error}).\nMADE-UP DATA of its shape are used instead.")
        return made_up(60_000, 10_000, 784)
    return Source("MNIST", _bytes(splits.train), _bytes(splits.test))


def made_up(train: int, test: int, features: int, seed: int = 0) -> Source:
    """Data with ten directions of variation, of any size.

    Example:
        >>> made_up(3, 2, 16).train.shape
        (3, 16)
    """
    draw = np.random.default_rng(seed)
    z, directions = draw.standard_normal((train + test, 10)), draw.standard_normal((10, features))
    levels = 255 / (1 + np.exp(2 - z @ directions))
    levels = levels.astype(np.uint8)
    return Source("made-up data", levels[:train], levels[train:], made_up=True)


def bits(levels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Grey levels drawn once as bits, ``(N, D)`` float32."""
    grey = torch.from_numpy(levels).float().div(255)
    return data.static_binarisation(grey, seed).numpy()


def of_case(case: Case, root: str | None = None) -> Source:
    """The data of a case, by the number of its features."""
    return digits() if case.features == 64 else mnist(root)


def _bytes(x: torch.Tensor) -> np.ndarray:
    return x.flatten(1).mul(255).round().byte().numpy()
