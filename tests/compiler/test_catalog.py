"""Compiled steps equal steps as written for every pair of the catalog: loss and every gradient.

On a CPU compiled code draws the program's own random numbers, so that both see the same ones.
A pair is compiled once, with Adam, and several tests look at what it did.
"""

from functools import cache
from typing import NamedTuple

import pyro
import pytest
import torch
from catalog import CATALOG
from descents import EXACT, graph_alone
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.testing import assert_close

from bayesvae import CompiledSVI, objectives

STILL = 3
"""Steps at rate 0, by the end of which steps are compiled."""


def analytic(model, guide, *batch):
    return -objectives.elbo(model, guide, *batch, analytic_kl=True, particles=3)


FAST = ["by hand, Pyro's tutorial", "by hand, shared latent"]
FAST += ["prior Mixture full", "guide PerDatapoint full"]
REST = [name for name in CATALOG if name not in FAST]
one_by_one = {"scope": "module"}
"""Lets the tests of a pair follow each other, so that what it did is still known."""


def training(build, loss, compile, optim):
    """A pair, its batches (others at each call) and its stochastic descent."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    case = build()
    case.pair.find_parameters(case.x, case.index)
    optimizer = optim(case.pair.parameters())
    svi = CompiledSVI(case.pair.model, case.pair.guide, optimizer, loss, compile=compile)

    def batches():
        while True:
            order = torch.randperm(len(case.x))
            yield case.x[order], case.index[order]

    return case, batches(), svi, optimizer


def losses_and_gradients(build, compile):
    """Losses of steps at rate 0, then one step at rate 1, whose movement is minus the gradient."""
    case, batches, svi, sgd = training(
        build, Trace_ELBO(), compile, lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    )
    losses = [svi.step(*next(batches)) for _ in range(STILL)]
    before = [p.detach().clone() for p in case.pair.parameters()]
    sgd.param_groups[0]["lr"] = 1.0
    losses.append(svi.step(*next(batches)))
    assert svi.is_compiled is compile
    moved = zip(before, case.pair.parameters(), strict=True)
    return losses, [old - new.detach() for old, new in moved]


class Descent(NamedTuple):
    """What steps of Adam did: one loss a step, every gradient of each, where they end."""

    losses: list[float]
    gradients: list[list[Tensor]]
    parameters: list[Tensor]


def descent(name, compile):
    """Steps of Adam; m <- b m + (1 - b) gradient, so the gradient is had from m."""
    case, batches, svi, adam = training(
        CATALOG[name], analytic, compile, lambda parameters: torch.optim.Adam(parameters, lr=1e-2)
    )
    parameters, decay = list(case.pair.parameters()), adam.defaults["betas"][0]
    losses, gradients, before = [], [], [torch.zeros_like(p) for p in parameters]
    for _ in range(STILL + 3):
        losses.append(svi.step(*next(batches)))
        now = [adam.state[p]["exp_avg"].clone() for p in parameters]
        gradients.append(
            [(m - decay * old) / (1 - decay) for m, old in zip(now, before, strict=True)]
        )
        before = now
    assert svi.is_compiled is compile
    return Descent(losses, gradients, [p.detach() for p in parameters])


@cache
def descents(name):
    """As written and compiled."""
    return descent(name, compile=False), descent(name, compile=True)


def require_equal(written, compiled):
    assert any(each.abs().max() > 1e-3 for each in written[1])
    assert_close(compiled, written, **EXACT)


def test_a_record_gives_the_loss_and_every_gradient_of(build, monkeypatch):
    graph_alone(monkeypatch)
    require_equal(*(losses_and_gradients(build, compile) for compile in (False, True)))


@pytest.mark.parametrize("name", FAST)
def test_compiled_code_gives_the_loss_and_every_gradient_of(name):
    require_equal(*(losses_and_gradients(CATALOG[name], compile) for compile in (False, True)))


@pytest.mark.slow
@pytest.mark.parametrize("name", REST, **one_by_one)
def test_compiled_code_gives_the_loss_and_every_gradient_of_the_rest_too(name):
    written, compiled = descents(name)
    for number in range(STILL + 3):
        pairs = ((each.losses[number], each.gradients[number]) for each in (written, compiled))
        require_equal(*pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REST, *FAST], **one_by_one)
def test_compiled_code_leads_adam_where_the_program_does(name):
    require_equal(*((each.losses, each.parameters) for each in descents(name)))
