"""One instance of every ruler, and data from it: what tests of rulers and estimators use."""

from collections.abc import Callable
from functools import partial

import torch

from bayesvae.core.programs import sampled
from bayesvae.rulers import (
    CategoricalComponents,
    FactorAnalysis,
    HiddenMarkov,
    NormalComponents,
    NormalMixture,
    Ruler,
    StateSpace,
)

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
