"""Rulers: generative programs whose log p(x) and posterior are known, to judge estimators by.

=======================  ===========================  ===========================================
`FactorAnalysis`         one normal vector a datum    everything in closed form
`NormalMixture`          one discrete state a datum   everything by a sum
`StateSpace`             a path of normal vectors     Kalman filter, Rauch-Tung-Striebel smoother
`HiddenMarkov`           a path of discrete states    forward and backward recursion
`SharedMean`             one latent for all data      everything in closed form
`quadrature`             any pair, D <= 2             on a grid, with an error that shows
=======================  ===========================  ===========================================

`bayesvae.pairs.PPCA` is one of them too.  A ruler is a `Ruler`, a file of its own here; it may use
`families` and `core`.
"""

from bayesvae.rulers.components import CategoricalComponents, NormalComponents
from bayesvae.rulers.factors import FactorAnalysis
from bayesvae.rulers.markov import HiddenMarkov, MarkovChain
from bayesvae.rulers.mixture import NormalMixture
from bayesvae.rulers.quadrature import Quadrature, quadrature
from bayesvae.rulers.ruler import Ruler
from bayesvae.rulers.shared import SharedMean
from bayesvae.rulers.statespace import StateSpace

__all__ = [
    "CategoricalComponents",
    "FactorAnalysis",
    "HiddenMarkov",
    "MarkovChain",
    "NormalComponents",
    "NormalMixture",
    "Quadrature",
    "Ruler",
    "SharedMean",
    "StateSpace",
    "quadrature",
]
