"""Every ruler agrees with itself: program, evidence and posterior are of one model."""

from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.testing import assert_close

from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.programs import sampled
from bayesvae.evidence import log_evidence
from bayesvae.rulers import (
    CategoricalComponents,
    FactorAnalysis,
    HiddenMarkov,
    NormalComponents,
    NormalMixture,
    Ruler,
    SharedMean,
    StateSpace,
)
from bayesvae.training import check_pair

EXACT = {"rtol": 1e-10, "atol": 1e-10}
BATCH, STEPS, FEATURES, LATENTS, STATES = 5, 4, 3, 2, 3


def scales(*shape):
    return torch.rand(shape) + 0.3


def factors(**to):
    weight = torch.randn(FEATURES, LATENTS)
    return FactorAnalysis(
        weight.to(**to), torch.randn(FEATURES).to(**to), scales(FEATURES).to(**to)
    )


def tril(*shape):
    return torch.randn(*shape, shape[-1]).tril(-1) + scales(*shape).diag_embed()


def mixture(spread=scales, **to):
    # Components of a few percent would make scores too skewed for a normal mean.
    logits, locs = torch.randn(STATES) / 2, torch.randn(STATES, FEATURES)
    return NormalMixture(logits.to(**to), locs.to(**to), spread(STATES, FEATURES).to(**to))


def normal_emission():
    return NormalComponents(torch.randn(STATES, FEATURES), scales(STATES, FEATURES))


def categorical_emission():
    return CategoricalComponents(torch.randn(STATES, 4))


def chain(emission=normal_emission, **to):
    initial, transition = torch.randn(STATES), 2 * torch.randn(STATES, STATES)
    return HiddenMarkov(initial, transition, emission()).to(**to)


def state_space(**to):
    return StateSpace(
        transition=0.6 * torch.randn(LATENTS, LATENTS),
        emission=torch.randn(FEATURES, LATENTS),
        loc=torch.randn(FEATURES),
        process_scales=scales(LATENTS),
        noise_scales=scales(FEATURES),
        initial_loc=torch.randn(LATENTS),
        initial_scales=scales(LATENTS),
    ).to(**to)


RULERS: dict[str, Callable[..., Ruler]] = {
    "FactorAnalysis": factors,
    "NormalMixture diagonal": mixture,
    "NormalMixture full": partial(mixture, tril),
    "HiddenMarkov normal": chain,
    "HiddenMarkov categorical": partial(chain, categorical_emission),
    "StateSpace": state_space,
}
EVENTS = {"HiddenMarkov categorical": (STEPS,)}
EVENTS |= dict.fromkeys(("HiddenMarkov normal", "StateSpace"), (STEPS, FEATURES))


def blank(name, size):
    """Data of the right shape and type, for a program to draw over."""
    dtype = torch.long if "categorical" in name else None
    return torch.zeros(size, *EVENTS.get(name, (FEATURES,)), dtype=dtype)


def drawn(name, ruler, size=BATCH):
    with torch.no_grad():
        return sampled(ruler)(blank(name, size))


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
