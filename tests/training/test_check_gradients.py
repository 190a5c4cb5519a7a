"""Parameters that would never train are found, and losses that break are traced."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import (
    D,
    data,
    levels,
    normal,
    pair_of,
    real,
    supports,
)
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from bayesvae.core.pair import Pair
from bayesvae.objectives import elbo
from bayesvae.training import check_pair, non_finite


class WithIdle(nn.Module):
    """A pair with a parameter that it does not use, and one that it does."""

    def __init__(self):
        super().__init__()
        self.idle, self.used = (nn.Parameter(torch.zeros(D)) for _ in range(2))

    def model(self, x):
        with data(x):
            z = pyro.sample("z", normal(torch.zeros(D)))
            pyro.sample("x", normal(z + self.used), obs=x)

    def guide(self, x):
        with data(x):
            pyro.sample("z", normal(x))


def test_a_parameter_outside_every_gradient_is_named_unless_it_is_frozen():
    programs, x = WithIdle(), real(D)
    pair = Pair(programs.model, programs.guide)
    for objective in (elbo, Trace_ELBO(), TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match=r"never train: \['model_part_0\.idle'\]"):
            check_pair(pair, x, objective)
    check_pair(pair, x, None)
    programs.idle.requires_grad_(False)
    check_pair(pair, x)


SCALE = nn.Parameter(torch.ones(()))


class Slotted:
    """Keeps its parameter where `vars` finds nothing."""

    __slots__ = ("scale",)

    def __init__(self):
        self.scale = SCALE

    def posterior(self, x):
        return normal(self.scale * x)


class Callable:
    """A program that is neither a function nor a module."""

    def __init__(self, guide):
        self.guide, self.scale = guide, SCALE

    def __call__(self, x):
        return self.guide(x, self.scale)


def sampled_with(x, scale):
    with data(x):
        pyro.sample("z", normal(scale * x))


UNSEEN = {
    "a global": lambda: lambda x: sampled_with(x, SCALE),
    "a list in a closure": lambda scales=(SCALE,): lambda x: sampled_with(x, scales[0]),
    "a callable object": lambda: Callable(sampled_with),
    "an object with slots": lambda: pair_of(posterior=Slotted().posterior).guide,
}


@pytest.mark.parametrize("place", UNSEEN)
def test_a_parameter_that_the_pair_cannot_see_is_refused_instead_of_left_untrained(place):
    pair = Pair(pair_of().model, UNSEEN[place]())
    if all(parameter is not SCALE for parameter in pair.parameters()):
        with pytest.raises(ValueError, match="gradient"):
            check_pair(pair, real(D))


def test_a_pair_whose_gradients_are_all_cut_is_refused():
    programs = WithIdle()
    cut = torch.no_grad()
    with pytest.raises(ValueError, match="No parameter of the pair has a gradient"):
        check_pair(Pair(cut(programs.model), programs.guide), real(D))


def test_gradients_are_checked_even_where_the_caller_switched_them_off():
    programs = WithIdle()
    with torch.no_grad(), pytest.raises(ValueError, match="never train"):
        check_pair(Pair(programs.model, programs.guide), real(D))


def test_latents_without_pathwise_gradient_need_an_objective_with_score_functions():
    pair = supports(dist.Bernoulli(0.5), dist.Bernoulli(0.3))
    for objective in (Trace_ELBO(), None):
        check_pair(pair, real(D), objective)
    for objective in (elbo, TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match=r"'z' \(Bernoulli\) has no reparameterised draws"):
            check_pair(pair, real(D), objective)


def test_every_objective_that_a_refusal_recommends_is_accepted():
    pair = supports(dist.Bernoulli(0.5), dist.Bernoulli(0.3))
    with pytest.raises(ValueError, match="has no reparameterised draws") as caught:
        check_pair(pair, real(D))
    recommended = set(re.findall(r"\w+_ELBO", str(caught.value)))
    assert "Trace_ELBO" in recommended
    for name in recommended:
        check_pair(pair, real(D), getattr(pyro.infer, name)())


def test_a_loss_that_is_not_finite_is_traced_to_the_parameter_or_the_site():
    programs = WithIdle()
    pair = Pair(programs.model, programs.guide)
    with pyro.validation_enabled(False):
        message = non_finite(pair, levels(torch.nan), None, 7, torch.nan)
    assert "it is nan at step 7" in message
    assert "Site 'x': 8.3% of the data are not finite" in message
    with torch.no_grad():
        programs.used[0] = torch.inf
    message = non_finite(pair, real(D), None, 8, torch.inf)
    assert "parameters ['model_part_0.used'] are not finite" in message
