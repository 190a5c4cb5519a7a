"""The best member of a family for each datum: q* = argmax L[q_lambda], and the way to it.

`ascent` climbs each datum's own bound, in the `standardised_coordinates`; `refinement`
takes only a few steps, from where a guide is.  `evidence` draws from what is found, `gaps`
measures what a guide loses against it.  It may use `families`, `guides`, `core` and `compiler`.
"""

from bayesvae.optima.ascent import DEFAULT_ASCENT, LOOK, Ascender, Ascent, Optimum
from bayesvae.optima.refinement import Refined, Refiner, Semi
from bayesvae.optima.standardised_coordinates import (
    Member,
    Own,
    Posteriors,
    StandardisedBatch,
    joined,
    kept,
    masked,
    standardised_batch,
)

__all__ = [
    "DEFAULT_ASCENT",
    "LOOK",
    "Ascender",
    "Ascent",
    "Member",
    "Optimum",
    "Own",
    "Posteriors",
    "Refined",
    "Refiner",
    "Semi",
    "StandardisedBatch",
    "joined",
    "kept",
    "masked",
    "standardised_batch",
]
