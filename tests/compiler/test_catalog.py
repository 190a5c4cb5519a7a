"""Compiled steps equal steps as written for every pair of the catalog: loss and every gradient.

On a CPU compiled code draws the program's own random numbers, so that both see the same ones.
"""

import pyro
import pytest
import torch
from catalog import CATALOG
from descents import EXACT, graph_alone
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

from bayesvae import CompiledSVI, objectives

STILL = 3
"""Steps at rate 0, by the end of which steps are compiled."""


def analytic(model, guide, *batch):
    return -objectives.elbo(model, guide, *batch, analytic_kl=True, particles=3)


LOSSES = {
    "Trace_ELBO": Trace_ELBO,
    "elbo, analytic, 3 particles": lambda: analytic,
}
FAST = ["by hand, Pyro's tutorial", "by hand, shared latent"]
FAST += ["prior Mixture full", "guide PerDatapoint full"]


def training(build, loss, compile, optim):
    """A pair, its batches (others at each call) and its stochastic descent."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    case = build()
    case.pair.find_parameters(case.x, case.index)
    optimizer = optim(case.pair.parameters())
    svi = CompiledSVI(case.pair.model, case.pair.guide, optimizer, loss(), compile=compile)

    def batches():
        while True:
            order = torch.randperm(len(case.x))
            yield case.x[order], case.index[order]

    return case, batches(), svi, optimizer


def losses_and_gradients(build, loss, compile):
    """Losses of steps at rate 0, then one step at rate 1, whose movement is minus the gradient."""
    case, batches, svi, sgd = training(
        build, loss, compile, lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    )
    losses = [svi.step(*next(batches)) for _ in range(STILL)]
    before = [p.detach().clone() for p in case.pair.parameters()]
    sgd.param_groups[0]["lr"] = 1.0
    losses.append(svi.step(*next(batches)))
    assert svi.is_compiled is compile
    moved = zip(before, case.pair.parameters(), strict=True)
    return losses, [old - new.detach() for old, new in moved]


def where_adam_leads(build, loss, compile):
    case, batches, svi, _ = training(
        build, loss, compile, lambda parameters: torch.optim.Adam(parameters, lr=1e-2)
    )
    losses = [svi.step(*next(batches)) for _ in range(STILL + 3)]
    assert svi.is_compiled is compile
    return losses, [p.detach() for p in case.pair.parameters()]


def require_equal(run, build, loss):
    (written, gradients), (fast, fast_gradients) = (
        run(build, LOSSES[loss], compile) for compile in (False, True)
    )
    assert any(g.abs().max() > 1e-3 for g in gradients)
    assert_close(fast, written, **EXACT)
    assert_close(fast_gradients, gradients, **EXACT)


def test_a_record_gives_the_loss_and_every_gradient_of(build, monkeypatch):
    graph_alone(monkeypatch)
    require_equal(losses_and_gradients, build, "Trace_ELBO")


@pytest.mark.parametrize("name", FAST)
def test_compiled_code_gives_the_loss_and_every_gradient_of(name):
    require_equal(losses_and_gradients, CATALOG[name], "Trace_ELBO")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CATALOG if name not in FAST])
def test_compiled_code_gives_the_loss_and_every_gradient_of_the_rest_too(name):
    require_equal(losses_and_gradients, CATALOG[name], "Trace_ELBO")


@pytest.mark.slow
def test_compiled_code_leads_adam_where_the_program_does(build):
    require_equal(where_adam_leads, build, "elbo, analytic, 3 particles")
