"""Objectives: what training maximises, in nats per datum.

An objective is a function ``objective(model, guide, *batch) -> Tensor ()``, or a Pyro ``ELBO``
object. Annealing, beta and other weights live here and never in a model or a guide.  An objective
of your own is one file here and one line below.  It may use `core` alone.
"""

from bayesvae.objectives.elbo import elbo
from bayesvae.objectives.kl_weights import linear_warmup
from bayesvae.objectives.objective import Objective, is_pathwise, per_datum, refuse_jit

__all__ = ["Objective", "elbo", "is_pathwise", "linear_warmup", "per_datum", "refuse_jit"]
