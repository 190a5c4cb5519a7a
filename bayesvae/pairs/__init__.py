"""Pairs: generative programs with their guides, ready to fit.

A pair of your own is one file here and one line below.  It may use `families`, `guides` and
`core`; priors, likelihoods and networks are handed to it as objects.
"""

from bayesvae.pairs import baselines
from bayesvae.pairs.layered import BottomUp, LatentLayers, hierarchical, vae
from bayesvae.pairs.linear import PPCA, ppca

__all__ = ["PPCA", "BottomUp", "LatentLayers", "baselines", "hierarchical", "ppca", "vae"]
