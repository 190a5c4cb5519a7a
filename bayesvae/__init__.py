"""Deep latent-variable models as Pyro model/guide pairs, and what their inference costs."""

from bayesvae import (
    data,
    families,
    generate,
    guides,
    likelihoods,
    networks,
    objectives,
    pairs,
    plots,
    priors,
    rulers,
)
from bayesvae.compiler import CompileError
from bayesvae.core.estimates import Estimate
from bayesvae.core.pair import Pair
from bayesvae.diagnose import calibrate
from bayesvae.evidence import (
    Annealing,
    LogJoint,
    annealed_evidence,
    bracket,
    chains,
    hmc,
    log_evidence,
    proposals,
    sandwich,
)
from bayesvae.gaps import compare, compare_training, routes
from bayesvae.optima import Semi
from bayesvae.pairs import baselines
from bayesvae.training import CompiledSVI, check_pair, fit

__version__ = "0.4.0"

__all__ = [
    "Annealing",
    "CompileError",
    "CompiledSVI",
    "Estimate",
    "LogJoint",
    "Pair",
    "Semi",
    "annealed_evidence",
    "baselines",
    "bracket",
    "calibrate",
    "chains",
    "check_pair",
    "compare",
    "compare_training",
    "data",
    "families",
    "fit",
    "generate",
    "guides",
    "hmc",
    "likelihoods",
    "log_evidence",
    "networks",
    "objectives",
    "pairs",
    "plots",
    "priors",
    "proposals",
    "routes",
    "rulers",
    "sandwich",
]
