"""Every estimator on every ruler that it can take comes out at the truth, or says that it may not.

Means over data are compared in standard errors.  A log of a mean is low by half its variance; runs
are long enough for that to be lost in the error.
"""

import warnings
from functools import partial

import pytest
from comparing import quiet
from linear_gaussian import assert_moments
from problems import CONTINUOUS, DISCRETE

from bayesvae import annealed_evidence, bracket, chains, log_evidence, proposals
from bayesvae.evidence import Annealing
from bayesvae.evidence.proposals import GUIDE, PRIOR
from bayesvae.optima import Ascent

DATA = 20
DEFENSIVE = proposals.mixture(GUIDE, PRIOR, shares=(0.8, 0.2))
WALKS = {
    GUIDE: Annealing(temperatures=20, leapfrogs=4, chains=16, pilot=10),
    PRIOR: Annealing(temperatures=100, leapfrogs=4, chains=16, pilot=20, start=PRIOR),
}
BRIEF = Ascent(particles=4, stages=1, window=40, windows=1)


def sampling(pair, x, proposal):
    return log_evidence(pair, x, 4000, proposal=proposal, compile=False)


def annealing(pair, x, start):
    return annealed_evidence(pair, x, WALKS[start], compile=False, progress=False)


def pooled(pair, x):
    """From a mixture of the guide and the optima, as `compare` does."""
    draws = {"particles": 10, "evidence_particles": 4000}
    result = quiet(pair, x, ascent=BRIEF, compile=False, **draws)
    return result.splits["train"].log_evidence


ESTIMATORS = {
    "drawn from the guide": partial(sampling, proposal=GUIDE),
    "drawn from optima": pooled,
    "drawn from the prior": partial(sampling, proposal=PRIOR),
    "drawn from a defensive mixture": partial(sampling, proposal=DEFENSIVE),
    "annealed from the guide": partial(annealing, start=GUIDE),
    "annealed from the prior": partial(annealing, start=PRIOR),
}
OF_DISCRETE = ("drawn from the guide", "drawn from optima")
SILENT = ("drawn from optima",)  # a comparison shows its effective sample sizes instead
PROBLEMS = CONTINUOUS | DISCRETE
TAKEN = [
    (problem, estimator)
    for problem in PROBLEMS
    for estimator in (ESTIMATORS if problem in CONTINUOUS else OF_DISCRETE)
]


def apart(estimate, truth, where=...):
    """The mean over data of estimate minus truth, in standard errors."""
    error = estimate.stderr[where].square().sum().sqrt() + 1e-12
    return (estimate.value - truth)[where].sum() / error


@pytest.mark.parametrize(("problem", "estimator"), TAKEN)
def test_log_p_of_x_is_the_truth_where_k_hat_trusts_it_and_a_warning_tells_where_not(
    problem, estimator
):
    problem = PROBLEMS[problem]()
    x = problem.data(DATA)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = ESTIMATORS[estimator](problem.pair, x)
    doubted = int((~found.trusted).sum())
    if estimator not in SILENT:
        words = f"k-hat is above 0.7 for {doubted} of {DATA} data"
        assert [words in str(each.message) for each in said] == [True] * bool(doubted)
    assert doubted < DATA
    assert found.bound == "lower"
    assert apart(found, problem.log_evidence(x), found.trusted).abs() < 4


@pytest.mark.parametrize("start", [GUIDE, PRIOR], ids=lambda start: start.name)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_both_sides_of_a_bracket_are_the_truth(name, start):
    problem = CONTINUOUS[name]()
    settings = {"annealing": WALKS[start], "compile": False, "progress": False}
    found = bracket(problem.pair, DATA, problem.event, **settings)
    truth = problem.log_evidence(found.x)
    assert found.width.mean().abs() < 0.2
    for side in (found.lower, found.upper):
        assert apart(side, truth).abs() < 4


@pytest.mark.parametrize("name", CONTINUOUS)
def test_chains_have_the_moments_of_the_posterior(name):
    problem = CONTINUOUS[name]()
    x, lengths = problem.data(8), {"chains": 8, "draws": 250, "warmup": 100, "leapfrogs": 5}
    found = chains.sample(problem.pair, x, **lengths, compile=False, progress=False)
    (draws,) = found.draws.values()
    assert_moments(found, draws.reshape(*draws.shape[:3], -1), *problem.moments(x))


REFUSED = {
    **{name: made for name, made in ESTIMATORS.items() if name not in OF_DISCRETE},
    "chains": partial(chains.sample, progress=False),
}


@pytest.mark.parametrize("estimator", REFUSED)
@pytest.mark.parametrize("problem", DISCRETE)
def test_discrete_latents_are_refused_in_words(problem, estimator):
    problem = DISCRETE[problem]()
    with pytest.raises(ValueError, match="Sum it out, or use log_evidence from the guide"):
        REFUSED[estimator](problem.pair, problem.data(4))
