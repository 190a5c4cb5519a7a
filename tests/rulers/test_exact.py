"""Every ruler agrees with itself: program, evidence and posterior are of one model."""

import pyro
import pytest
import torch
from ruler_catalog import BATCH, EXACT, RULERS, drawn
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.testing import assert_close

from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.evidence import log_evidence
from bayesvae.rulers import (
    CategoricalComponents,
    FactorAnalysis,
    HiddenMarkov,
    NormalComponents,
    NormalMixture,
    SharedMean,
    StateSpace,
)
from bayesvae.training import check_pair


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", RULERS)
def test_joint_over_posterior_is_the_evidence_whatever_the_latent(name, particles):
    """Bayes' rule: wrong wherever program, posterior and evidence are of different models."""
    ruler = RULERS[name]()
    x, pair = drawn(name, ruler), ruler.pair()
    weight = trace.log_terms(pair.model, pair.guide, x, particles=particles).local.log_weight
    assert_close(weight, ruler.log_evidence(x).expand(particles, BATCH), **EXACT)


class Evidence(nn.Module):
    """log p of one datum, for `torch.func`."""

    def __init__(self, ruler):
        super().__init__()
        self.ruler = ruler

    def forward(self, row):
        return self.ruler.log_evidence(row.unsqueeze(0)).squeeze(0)


@pytest.mark.parametrize("name", RULERS)
def test_program_draws_what_the_evidence_describes(name):
    """Only draws of p itself have scores d log p(x) / d theta of mean zero."""
    evidence = Evidence(RULERS[name]())
    x, parameters = drawn(name, evidence.ruler, 4000), dict(evidence.named_parameters())
    each = vmap(grad(lambda p, row: functional_call(evidence, p, (row,))), (None, 0))
    with pyro.validation_enabled(False):  # whose branches vmap cannot take
        scores = torch.cat([score.flatten(1) for score in each(parameters, x).values()], 1)
    error = scores.std(0) / len(x) ** 0.5
    assert (error > 0).all(), "each parameter matters"
    assert (scores.mean(0) / error).abs().max() < 4.5


@pytest.mark.parametrize("name", RULERS)
def test_exact_pairs_are_sound_and_estimated_without_noise(name):
    ruler = RULERS[name]()
    x, pair = drawn(name, ruler), ruler.pair()
    check_pair(pair, x, objective=None)
    estimate = log_evidence(pair, x, particles=5, compile=False)
    assert_close(estimate.value, ruler.log_evidence(x).detach(), **EXACT)
    assert estimate.stderr.max() < 1e-6


@pytest.mark.parametrize("name", ["FactorAnalysis", "StateSpace"])
def test_latent_coordinates_have_the_posterior_times_the_evidence_as_density(name):
    ruler = RULERS[name]()
    x, pair = drawn(name, ruler), ruler.pair()
    coordinates = Coordinates(pair.model, pair.guide, x)
    u = torch.randn(4, BATCH, coordinates.size)
    joint = ruler.log_evidence(x) + ruler.posterior(x).log_prob(u)
    assert_close(coordinates.at(u, x).log_joint, joint, **EXACT)


@pytest.mark.parametrize("name", RULERS)
def test_a_guide_of_ones_own_takes_the_place_of_the_exact_one(name):
    ruler = RULERS[name]()
    x = drawn(name, ruler)

    def mistaken(x, index=None):
        with pyro.plate("data", len(x)):
            pyro.sample(ruler.site, ruler.posterior(x.roll(1, 0)))

    pair = ruler.pair(mistaken)
    weight = trace.log_terms(pair.model, pair.guide, x).local.log_weight
    assert (weight - ruler.log_evidence(x)).abs().max() > 0.1


@pytest.mark.parametrize("name", RULERS)
def test_rulers_keep_the_dtype_of_their_numbers_and_not_the_default_one(name):
    ruler = RULERS[name](dtype=torch.float32)
    x = drawn(name, ruler)
    assert x.dtype in (torch.float32, torch.long)
    assert ruler.log_evidence(x).dtype == torch.float32
    assert ruler.posterior(x).sample().dtype in (torch.float32, torch.long)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FactorAnalysis(torch.ones(3, 1), torch.ones(3), torch.ones(2)), r"scales \(D,\)"),
        (lambda: FactorAnalysis(torch.ones(3, 1), torch.ones(3), torch.zeros(3)), "from 0"),
        (lambda: NormalMixture(torch.ones(2), torch.ones(3, 1), torch.ones(3, 1)), r"logits \(C"),
        (lambda: NormalComponents(torch.ones(3, 2), torch.ones(3, 1)), r"locs \(C, D\)"),
        (lambda: NormalComponents(torch.ones(3, 2), -torch.ones(3, 2)), "from -1"),
        (lambda: NormalComponents(torch.ones(3, 2), torch.ones(3, 2, 2)), "lower triangular"),
        (lambda: CategoricalComponents(torch.ones(3)), r"logits \(C, V\)"),
        (lambda: HiddenMarkov(torch.ones(3), torch.ones(3, 2), None), r"transition_logits \(S, S"),
        (lambda: SharedMean(noise_scale=0.0), "positive scales"),
        (lambda: StateSpace(*[torch.ones(1)] * 7), r"transition \(1,\)"),
        (
            lambda: StateSpace(*[torch.ones(1, 1)] * 2, *[torch.ones(1)] * 4, -torch.ones(1)),
            "initial_scales -1",
        ),
    ],
)
def test_shapes_and_scales_that_make_no_model_are_refused_in_words(build, words):
    with pytest.raises(ValueError, match=words):
        build()
