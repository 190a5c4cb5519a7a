"""What a variational family has to offer, and how unconstrained numbers become scales.

Scales are softplus(raw) + 1e-6: like exp for the small scales of a sharp posterior, tame for
large.
"""

from abc import ABC, abstractmethod
from math import pi
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

SCALE_FLOOR = 1e-6


class Family(ABC):
    """What a variational family has to offer; any object that does will serve.

    Attributes:
        patience: how many windows in a row an ascent of its rows has to lose before a stage ends,
            at least (see `bayesvae.optima.Ascent`): more than one where gains are slow and uneven.
    """

    patience: ClassVar[int] = 1

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers make a row."""

    @abstractmethod
    def __call__(self, rows: Tensor) -> Distribution:
        """Rows ``(*, size)`` to a distribution with batch shape ``(*)``."""

    @abstractmethod
    def rows(self, distribution: Distribution) -> Tensor:
        """Rows ``(*, size)`` of the member equal to, or moment-matched with, a distribution."""

    @abstractmethod
    def contains(self, distribution: Distribution) -> bool:
        """Whether a distribution is a member of the family."""


def positive(raw: Tensor) -> Tensor:
    """softplus(raw) + 1e-6, elementwise: a scale or rate from an unconstrained number."""
    return softplus(raw) + SCALE_FLOOR


def raw_of(scale: Tensor) -> Tensor:
    """The inverse of `positive`, elementwise; scales at or below the floor become tiny ones."""
    above = (scale - SCALE_FLOOR).clamp_min(torch.finfo(scale.dtype).tiny)
    return above + torch.log(-torch.expm1(-above))


def cosines(length: int, frequencies: Tensor) -> Tensor:
    """cos(pi f (n + 1/2) / N) for n < N = ``length`` and each frequency, ``(N, frequencies)``.

    Columns of different whole frequencies below N are orthogonal, and all but that of zero sum to
    zero: fixed directions that are unlike each other.

    Example:
        >>> cosines(2, torch.tensor([1.0])).flatten()
        tensor([ 0.7071, -0.7071])
    """
    places = torch.arange(length, dtype=frequencies.dtype, device=frequencies.device) + 0.5
    return torch.cos(pi / length * places.unsqueeze(-1) * frequencies)
