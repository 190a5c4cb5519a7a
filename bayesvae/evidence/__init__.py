"""log p(x), from below and from both sides, and the posterior, datum by datum.

`importance` averages weights of draws from `proposals`; `ais` anneals along a path that a pilot
froze; `brackets` puts log p(x) between two bounds; `hmc` and `chains` draw from posteriors;
`log_joint` is what a sampler of your own needs.  Every estimate says on which side it errs.  It
may use `optima`, `generate`, `families`, `core`, `compiler` and `data`.
"""

from bayesvae.evidence import chains, hmc, proposals
from bayesvae.evidence.ais import Annealing
from bayesvae.evidence.brackets import (
    Bracket,
    annealed_evidence,
    bracket,
    require_sound,
    sandwich,
    sandwiched,
)
from bayesvae.evidence.importance import elbo_per_datum, log_evidence
from bayesvae.evidence.log_joint import LogJoint

__all__ = [
    "Annealing",
    "Bracket",
    "LogJoint",
    "annealed_evidence",
    "bracket",
    "chains",
    "elbo_per_datum",
    "hmc",
    "log_evidence",
    "proposals",
    "require_sound",
    "sandwich",
    "sandwiched",
]
