"""The best member of a family for each datum: q* = argmax L[q_lambda], and the way to it.

`ascent` climbs each datum's own bound, in the coordinates of `standardised`; `refinement`
takes only a few steps, from where a guide is.  `evidence` draws from what is found, `gaps`
measures what a guide loses against it.  It may use `families`, `guides`, `core` and `compiler`.
"""

from bayesvae.optima.ascent import DEFAULT_ASCENT, LOOK, Ascender, Ascent, Optimum
from bayesvae.optima.refinement import Refined, Refiner, Semi
from bayesvae.optima.standardised import (
    Frame,
    Member,
    Own,
    Posteriors,
    framed,
    joined,
    kept,
    masked,
)

__all__ = [
    "DEFAULT_ASCENT",
    "LOOK",
    "Ascender",
    "Ascent",
    "Frame",
    "Member",
    "Optimum",
    "Own",
    "Posteriors",
    "Refined",
    "Refiner",
    "Semi",
    "framed",
    "joined",
    "kept",
    "masked",
]
