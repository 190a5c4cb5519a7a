"""Variational families: a row of unconstrained numbers lambda becomes a distribution q_lambda(z).

How lambda is found is another matter (see `bayesvae.guides`): the same family object serves a
network, a free row a datum, and the optimiser that measures what a network loses.  A family is any
object with

    ``size``               how many numbers make a row;
    ``family(rows)``       rows ``(*, size)`` to a distribution over z, batch shape ``(*)``;
    ``family.rows(q)``     rows that give q, or the member that shares its moments;
    ``family.contains(q)`` whether q is a member (so that ``rows`` is exact).

A family of your own is one file here and one line below; it may use `core`.

Rows of zeros, or small ones, are a place to start from: about a standard normal, with a gradient.
"""

from bayesvae.families.base import SCALE_FLOOR, Family, positive, raw_of
from bayesvae.families.flow import Flow
from bayesvae.families.low_rank import LowRankNormal
from bayesvae.families.mixture import NormalMixture
from bayesvae.families.normal import MultivariateNormal, Normal

__all__ = [
    "SCALE_FLOOR",
    "Family",
    "Flow",
    "LowRankNormal",
    "MultivariateNormal",
    "Normal",
    "NormalMixture",
    "positive",
    "raw_of",
]
