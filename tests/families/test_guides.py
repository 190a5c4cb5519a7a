"""Every family serves every way in which lambda is found."""

import math

import pytest
import torch
from descents import free_of_charge, graph_alone
from family_members import FAMILIES, grid, odd
from linear_gaussian import drawn, rotated, state_of
from pyro.infer import Trace_ELBO
from torch import nn
from torch.testing import assert_close

from bayesvae import CompiledSVI, data, fit, guides, networks
from bayesvae.pairs import ppca

SIZE = 8


def network(family):
    return networks.MLP(5, (4,), family.size, nn.Tanh)


def amortized(family, model):
    return guides.Amortized(network(family), family)


def per_datapoint(family, model):
    return guides.PerDatapoint(SIZE, family)


def semi_amortized(family, model, steps=1, through=False):
    return guides.SemiAmortized(network(family), family, model, steps, through=through)


WAYS = {
    "Amortized": amortized,
    "PerDatapoint": per_datapoint,
    "SemiAmortized": semi_amortized,
    "SemiAmortized, through": lambda *parts: semi_amortized(*parts, through=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_fit_moves_all_that_a_guide_is_made_of(name, way):
    model = rotated()
    pair = ppca(model, WAYS[way](FAMILIES[name](2), model))
    before = state_of(pair)
    loader = data.Loader(drawn(model, SIZE), SIZE, shuffle=True)
    history = fit(pair, loader, epochs=1, compile=False, progress=False)
    assert math.isfinite(history.epochs[0].objective)
    still = [n for n, value in pair.state_dict().items() if torch.equal(value, before[n])]
    assert still == []


@pytest.mark.parametrize("name", FAMILIES)
def test_no_steps_are_exactly_the_amortized_guide(name):
    model = rotated()
    x, semi = drawn(model, SIZE), semi_amortized(FAMILIES[name](2), model, 0)
    seen = []
    for guide in (semi, semi.start):
        torch.manual_seed(1)
        loss = Trace_ELBO().differentiable_loss(model, guide, x)
        seen.append([loss, *torch.autograd.grad(loss, list(semi.parameters()))])
    assert_close(*seen, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_slopes_of_the_steps_are_unbiased(name):
    """Also of a mixture, for which draws come with weights that depend on lambda."""
    model, copies = rotated(dim=1), 6000
    x = drawn(model, 1)
    family, row = odd(name, 1)
    exact = row.clone().requires_grad_()
    u, volume = grid(family(row))
    with torch.no_grad():
        log_joint = model.log_evidence(x) + model.posterior(x).log_prob(u)
    log_q = family(exact).log_prob(u)
    bound = (log_q.exp() * (log_joint - log_q)).sum() * volume
    (expected,) = torch.autograd.grad(bound, exact)

    rows = row.expand(copies, -1).clone().requires_grad_()
    guide = guides.SemiAmortized(network(family), family, model, 1, particles=1)
    bounds = guide._bound(rows, x.expand(copies, -1), None)
    (slopes,) = torch.autograd.grad(bounds, rows)
    assert expected.abs().max() > 0.1
    error = slopes.std(0) / copies**0.5 + 1e-6
    assert ((slopes.mean(0) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize(
    ("name", "through"), [*((name, False) for name in FAMILIES), ("NormalMixture", True)]
)
def test_a_record_of_training_through_steps_is_the_training_as_written(name, through, monkeypatch):
    free_of_charge(monkeypatch)
    graph_alone(monkeypatch)
    seen = []
    for compile in (False, True):
        torch.manual_seed(7)
        model = rotated()
        guide = semi_amortized(FAMILIES[name](2), model, 2, through)
        optimizer = torch.optim.SGD([*model.parameters(), *guide.parameters()], lr=1e-3)
        svi = CompiledSVI(model, guide, optimizer, Trace_ELBO(), compile=compile)
        losses = [svi.step(drawn(model, SIZE, seed=step)) for step in range(4)]
        assert svi.is_compiled is compile
        seen.append([*losses, *guide.parameters()])
    assert_close(*seen, rtol=1e-10, atol=1e-10)
