"""Pyro's ELBOs that sum over discrete latents: recorded, they are what they are as written."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from descents import both, require_same, without_the_compiler
from pyro.infer import TraceEnum_ELBO
from pyro.infer.util import Dice
from torch import nn
from torch.testing import assert_close

from bayesvae.compiler.patches import recordable

COMPONENTS = 3


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


class Mixture(nn.Module):
    """Normals whose component is summed over in the model."""

    model_infer, guide_infer = {"enumerate": "parallel"}, None

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(COMPONENTS))
        self.means = nn.Parameter(torch.randn(COMPONENTS))
        self.encoder = nn.Linear(1, COMPONENTS)

    def model(self, x):
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            which = dist.Categorical(logits=self.logits)
            component = pyro.sample("component", which, infer=self.model_infer)
            pyro.sample("x", dist.Normal(self.means[component], 1.0), obs=x[:, 0])

    def guide(self, x):
        pyro.module("mixture", self)
        if self.model_infer is None:
            with pyro.plate("data", len(x)):
                which = dist.Categorical(logits=self.encoder(x[:, :1]))
                pyro.sample("component", which, infer=self.guide_infer)


class Guided(Mixture):
    """Summed over in the guide, by its probabilities."""

    model_infer, guide_infer = None, {"enumerate": "parallel"}


class Sampled(Mixture):
    """Drawn by the guide, which learns by its score."""

    model_infer, guide_infer = None, {}


def elbo():
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)


def adam(programs):
    return pyro.optim.Adam({"lr": 1e-2})


@pytest.mark.parametrize("build", [Mixture, Guided, Sampled])
def test_a_sum_over_discrete_latents_compiles_and_stays_the_same(build):
    require_same(*both(build, adam, loss=elbo))


def test_a_sum_in_the_guide_is_the_same_in_compiled_code(compiler):
    require_same(*both(Guided, adam, loss=elbo))


def expectation(prob, cost):
    """Value and gradients of a sum whose guide has one site of given probabilities."""
    log_prob = prob.log().requires_grad_()
    cost = cost.clone().requires_grad_()
    log_prob._pyro_dims = cost._pyro_dims = "a"
    dice = Dice.__new__(Dice)
    dice.log_denom, dice.log_probs = {}, {frozenset(): [log_prob]}
    total = dice.compute_expectation({frozenset(): [cost]})
    return total.detach(), *torch.autograd.grad(total, [log_prob, cost])


def test_what_has_no_probability_adds_neither_to_the_sum_nor_to_its_gradient():
    prob, cost = torch.tensor([0.25, 0.0, 0.75]), torch.tensor([2.0, torch.inf, -1.0])
    exact = expectation(prob, cost)
    with recordable():
        ours = expectation(prob, cost)
    assert exact[0].isfinite()
    assert_close(ours, exact)
