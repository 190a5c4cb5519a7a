"""Estimators of log p(x) in the words of the command line."""

from typing import Any

from jsonargparse import Namespace

from bayesvae.cli.arguments import COMPILE
from bayesvae.core.estimates import TRUSTED, Estimate
from bayesvae.core.pair import Pair
from bayesvae.evidence import Annealing, annealed_evidence, log_evidence
from bayesvae.evidence.proposals import GUIDE, PRIOR, Proposal, mixture, optimum

_OPTIMUM = optimum()
PROPOSALS: dict[str, Proposal] = {
    "guide": GUIDE,
    "prior": PRIOR,
    "optimum": _OPTIMUM,
    "mixture": mixture(GUIDE, PRIOR, _OPTIMUM),
}
"""What the words of ``--proposal`` mean."""
_WALK = ("temperatures", "leapfrogs", "chains")


def annealing_of(options: Namespace) -> Annealing:
    """The path that is asked for, from the guide where a command has no say in that.

    The library's own numbers stand where none are given.
    """
    given = {name: options[name] for name in _WALK if options[name] is not None}
    return Annealing(start=PROPOSALS[options.get("proposal", "guide")], **given)


def refuse_walking(options: Namespace) -> None:
    """Refuses numbers of a path where none is walked.

    Raises:
        ValueError: if there are any.
    """
    told = [f"--{name}" for name in _WALK if options[name] is not None]
    if told and not options.annealing:
        raise ValueError(f"{', '.join(told)} belongs to --annealing; got none. Add --annealing.")


def evidence_of(pair: Pair, data: Any, options: Namespace) -> Estimate:
    """log p(x) of every datum as the options of ``evaluate`` ask for it."""
    how = {"progress": not options.quiet, "compile": COMPILE[options.compile]}
    if options.annealing:
        return annealed_evidence(pair, data, annealing_of(options), **how)
    proposal = PROPOSALS[options.proposal]
    return log_evidence(pair, data, options.particles, proposal=proposal, **how)


def in_words(options: Namespace) -> str:
    """The estimator of the options of ``evaluate``, to be put behind "by"."""
    name = PROPOSALS[options.proposal].name
    if not options.annealing:
        return f"importance sampling from {name}"
    return f"{path_in_words(annealing_of(options))}, from {name}"


def path_in_words(path: Annealing) -> str:
    """A path's length and its chains.

    Example:
        >>> path_in_words(Annealing())
        'annealing, 200 temperatures of 10 leapfrogs, 8 chains a datum'
    """
    return (
        f"annealing, {path.temperatures} temperatures of {path.leapfrogs} leapfrogs, "
        f"{path.chains} chains a datum"
    )


def path_entries(path: Annealing) -> dict[str, Any]:
    """A path as entries of a JSON file."""
    return {name: getattr(path, name) for name in _WALK}


def described(evidence: Estimate, options: Namespace) -> dict[str, Any]:
    """The estimator and its health as entries of a JSON file."""
    entries: dict[str, Any] = {"proposal": options.proposal, "annealing": options.annealing}
    if options.annealing:
        entries |= path_entries(annealing_of(options))
    if evidence.k_hat is not None:
        above = int((~evidence.trusted).sum())
        entries |= {"k_hat_threshold": TRUSTED, "data_with_k_hat_above_it": above}
    return entries
