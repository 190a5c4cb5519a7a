"""Deep latent-variable models as Pyro model/guide pairs, and what their inference costs."""

from bayesvae import (
    baselines,
    chains,
    data,
    families,
    generate,
    guides,
    hmc,
    likelihoods,
    networks,
    objectives,
    pairs,
    plots,
    priors,
    proposals,
    routes,
    rulers,
)
from bayesvae.ais import Annealing
from bayesvae.brackets import annealed_evidence, bracket, sandwich
from bayesvae.calibration import calibrate
from bayesvae.check import check_pair
from bayesvae.compiled import CompileError
from bayesvae.densities import LogJoint
from bayesvae.estimates import Estimate
from bayesvae.evidence import log_evidence
from bayesvae.fit import fit
from bayesvae.gaps import compare
from bayesvae.pair import Pair
from bayesvae.semi import Semi
from bayesvae.svi import CompiledSVI
from bayesvae.training import compare_training

__version__ = "0.3.0"

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
