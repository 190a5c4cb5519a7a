"""Settings of a wrong kind are answered in words; the caller's mode of autograd is no matter."""

import pytest
import torch
from linear_gaussian import drawn, rotated, shifted
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from bayesvae import (
    Annealing,
    Pair,
    Semi,
    annealed_evidence,
    bracket,
    chains,
    compare,
    families,
    log_evidence,
    proposals,
)
from bayesvae.optima import Ascent

SHORT = Ascent(particles=2, stages=1, window=2, windows=1)


def compared(**settings):
    return lambda pair, x: compare(pair, x, progress=False, **settings)


def local_autoguide(model):
    return AutoNormal(poutine.block(model, hide=["x"]))


def annealed(settings):
    return lambda pair, x: annealed_evidence(pair, x, settings, progress=False)


MISUSES = {
    "a name for a proposal": (
        lambda pair, x: log_evidence(pair, x, 30, proposal="prior"),
        TypeError,
        "`proposal` takes a value of type Proposal; got 'prior'. Use proposals.GUIDE",
    ),
    "a maker for a proposal": (
        lambda pair, x: log_evidence(pair, x, 30, proposal=proposals.optimum),
        TypeError,
        r"proposals.optimum\(\)",
    ),
    "a name for a start": (
        annealed(Annealing(start="prior")),
        TypeError,
        "`start` takes .*'prior'",
    ),
    "a number for an annealing": (annealed(200), TypeError, "`annealing` takes .*200"),
    "a switch for an annealing": (compared(annealing=True), TypeError, "`annealing` takes .*True"),
    "a number for a bracket": (
        lambda pair, x: bracket(pair, 3, (5,), 200, progress=False),
        TypeError,
        "`annealing`",
    ),
    "a number for a shape": (
        lambda pair, x: bracket(pair, 3, 5, progress=False),
        TypeError,
        "`event` takes .*5",
    ),
    "a family for its maker": (
        lambda pair, x: proposals.optimum(families.Normal(2)),
        TypeError,
        "optimum takes a maker",
    ),
    "numbers for steps": (compared(semi=(1, 5)), TypeError, r"`semi` takes .*\(1, 5\)"),
    "one number of steps": (compared(semi=Semi(5)), ValueError, r"got 5, 4 .*steps=\(1, 5, 20\)"),
    "a number for an ascent": (compared(ascent=100), TypeError, "`ascent` takes .*100"),
    "no windows": (compared(ascent=SHORT._replace(windows=0)), ValueError, "windows=0"),
    "no draws": (
        lambda pair, x: proposals.optimum(ascent=SHORT._replace(particles=0)),
        ValueError,
        "particles=0",
    ),
    "a training that ends before it begins": (
        compared(training_seconds=-3.0),
        ValueError,
        "a time that has passed; got -3.0",
    ),
    "an autoguide over the latents of a datum": (
        lambda pair, x: log_evidence(Pair(pair.model, local_autoguide(pair.model)), x, 5),
        ValueError,
        "in place of an autoguide.*PerDatapoint",
    ),
    "a mixture of nothing": (lambda pair, x: proposals.mixture(), ValueError, "for 0 parts"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_settings_of_the_wrong_kind_are_refused_in_words(misuse):
    call, error, words = MISUSES[misuse]
    with pytest.raises(error, match=words):
        call(shifted(rotated()), drawn(rotated(), 3))


EVALUATIONS = {
    "compare": compared(ascent=SHORT, semi=Semi((1,)), particles=5, evidence_particles=5),
    "annealing": annealed(Annealing(temperatures=3, leapfrogs=1, pilot=0)),
    "chains": lambda pair, x: chains.sample(pair, x, draws=5, warmup=5, progress=False),
}


@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_what_needs_gradients_finds_them_in_inference_mode(evaluation):
    pair, x = shifted(rotated()), drawn(rotated(), 3)
    with torch.inference_mode():
        EVALUATIONS[evaluation](pair, x)
        assert torch.is_inference_mode_enabled()
