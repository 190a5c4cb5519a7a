"""A pair run forwards: draws of the model, codes of data, and what lies between codes.

The model is asked for the distribution of the observed site with its latents drawn, or fixed at
given values; its mean is E[x | z].  Latents outside the data plate, shared by all data, stay at
the guide's means wherever data are given.  Nothing here is a bound or an estimate: these are the
arrays under the pictures, and the data that calibration and brackets need.  It may use `core` and
`data`.
"""

from bayesvae.generate.decoding import (
    Traversals,
    interpolations,
    means,
    reconstructions,
    traversals,
)
from bayesvae.generate.encoding import codes, encoded
from bayesvae.generate.grids import Grid, posterior_grid
from bayesvae.generate.sampling import Samples, blank, prior_moments, samples
from bayesvae.generate.simulation import joint_draws

__all__ = [
    "Grid",
    "Samples",
    "Traversals",
    "blank",
    "codes",
    "encoded",
    "interpolations",
    "joint_draws",
    "means",
    "posterior_grid",
    "prior_moments",
    "reconstructions",
    "samples",
    "traversals",
]
