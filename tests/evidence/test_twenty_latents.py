"""Twenty latents and two hundred pixels: what finds log p(x) there, and what does not."""

import pytest
from comparing import quiet
from linear_gaussian import drawn, rotated, shifted

from bayesvae import annealed_evidence, families, log_evidence
from bayesvae.evidence import Annealing
from bayesvae.evidence.proposals import GUIDE, PRIOR

WITHIN = 0.05
"""Nats."""
DATA = 10


def twenty():
    """A PPCA, data of its own, and a pair whose guide is beside the best diagonal normal."""
    model = rotated(features=200, dim=20).requires_grad_(False)
    return model, drawn(model, DATA), shifted(model, 0.1, 1.1)


@pytest.mark.parametrize(
    "settings",
    [
        Annealing(temperatures=50, leapfrogs=5, chains=16, pilot=20, start=GUIDE),
        pytest.param(
            Annealing(temperatures=800, leapfrogs=5, chains=32, pilot=20, start=PRIOR),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["the guide", "the prior"],
)
def test_annealing_finds_log_p_of_x_from(settings):
    model, x, pair = twenty()
    found = annealed_evidence(pair, x, settings, compile=False, progress=False)
    assert (found.value - model.log_evidence(x)).mean().abs() < WITHIN


def test_the_best_full_covariance_reaches_log_p_of_x():
    model, x, pair = twenty()
    makers = (families.MultivariateNormal,)
    result = quiet(pair, x, families=makers, evidence_particles=100, compile=False)
    missed = model.log_evidence(x) - result.splits["train"].bounds["MultivariateNormal"].value
    assert missed.abs().max() < WITHIN
    assert model.diagonal_gap() > 10 * WITHIN  # so that a diagonal one would not do


def test_naive_sampling_fails_and_says_so():
    model, x, pair = twenty()
    with pytest.warns(UserWarning, match=f"k-hat is above 0.7 for {DATA} of {DATA} data: the pri"):
        found = log_evidence(pair, x, 4000, proposal=PRIOR, compile=False)
    assert (model.log_evidence(x) - found.value).min() > 1
