"""Steps uphill from the network's guess: none leaves the guess, many find the optimum."""

import pyro
import pytest
import torch
from linear_gaussian import diagonal_optimum, drawn, kl_to_posterior, rotated, same_state, state_of
from pyro.infer import Trace_ELBO
from torch import nn
from torch.testing import assert_close

from bayesvae import CompiledSVI, compare, families, fit, guides, log_evidence, networks
from bayesvae.core.trace import log_terms
from bayesvae.pairs import ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def made(model, steps, **settings):
    torch.manual_seed(7)
    family = families.Normal(2)
    network = networks.MLP(5, (6,), family.size, nn.Tanh)
    return guides.SemiAmortized(network, family, model, steps, **settings)


def gap(model, guide, x):
    q = guide.posterior(x).base_dist
    return (kl_to_posterior(model, q, x) - model.diagonal_gap()).mean()


def test_no_steps_are_exactly_the_amortized_guide():
    model = rotated()
    x, semi = drawn(model, 6), made(model, 0)
    plain = semi.start
    assert_close(semi.posterior(x).base_dist.loc, plain.posterior(x).base_dist.loc, **EXACT)
    seen = []
    for guide in (semi, plain):
        torch.manual_seed(1)
        loss = Trace_ELBO().differentiable_loss(model, guide, x)
        seen.append([loss, *torch.autograd.grad(loss, list(plain.parameters()))])
    assert_close(*seen, **EXACT)


def test_the_model_is_no_part_of_the_guide():
    guide = made(rotated(), 2)
    assert list(guide.state_dict()) == [f"start.{name}" for name in guide.start.state_dict()]


def test_more_steps_come_nearer_to_the_best_of_the_family():
    model = rotated()
    x = drawn(model, 200)
    gaps = [gap(model, made(model, k, particles=16), x).item() for k in (0, 5, 20, 100)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.05 * gaps[0]
    assert gaps[-1] > -1e-6


@pytest.mark.parametrize("through", [False, True])
def test_the_network_gets_a_gradient(through):
    model = rotated()
    x, guide = drawn(model, 6), made(model, 2, through=through)
    loss = Trace_ELBO().differentiable_loss(model, guide, x)
    gradients = torch.autograd.grad(loss, list(guide.start.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_the_gradient_through_the_steps_is_the_derivative_of_what_comes_out():
    model = rotated()
    x, guide = drawn(model, 3), made(model, 3, through=True)
    bias = guide.start.network.layers[-1].bias

    def out():
        torch.manual_seed(5)
        return guide.posterior(x).base_dist.loc.sum()

    (slope,) = torch.autograd.grad(out(), bias)
    for place in range(len(bias)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[place] += sign * 1e-6
                ends.append(out().item())
                bias[place] -= sign * 1e-6
        assert slope[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_without_going_through_the_steps_are_constants():
    model = rotated()
    x, guide = drawn(model, 3), made(model, 3)
    torch.manual_seed(5)
    out = guide.posterior(x).base_dist.loc.sum()
    plain = guide.start.posterior(x).base_dist.loc.sum()
    assert (out - plain).abs() > 1e-3
    parameters = list(guide.start.parameters())
    first, second = (torch.autograd.grad(each, parameters) for each in (out, plain))
    assert_close(first, second, **EXACT)


def test_handlers_around_the_guide_do_not_see_the_looks_at_the_model():
    model = rotated()
    x, guide = drawn(model, 4), made(model, 2)
    sites = pyro.poutine.trace(guide).get_trace(x).nodes
    assert {n for n, s in sites.items() if s["type"] == "sample"} == {"data", "z"}
    terms = log_terms(model, guide, x, particles=3)
    assert terms.local.log_weight.shape == (3, 4)


def test_the_pair_trains_is_evaluated_and_compared_like_any_other():
    model = rotated()
    x, guide = drawn(model, 60), made(model, 3)
    pair = ppca(model.requires_grad_(False), guide)
    before = gap(model, guide, x)
    history = fit(pair, x, epochs=60, batch_size=30, compile=False, progress=False)
    assert len(history.epochs) == 60
    assert gap(model, guide, x) < 0.5 * before
    kept = state_of(pair)
    assert log_evidence(pair, x, 50).value.shape == (60,)
    split = compare(pair, x, particles=50, evidence_particles=200, progress=False).splits["train"]
    assert split.own == "Normal"
    assert same_state(pair, kept)


def test_a_compiled_step_is_the_step_as_written(monkeypatch):
    from descents import free_of_charge, graph_alone

    free_of_charge(monkeypatch)
    graph_alone(monkeypatch)
    seen = []
    for when in (False, True):
        pyro.clear_param_store()
        model = rotated()
        guide = made(model, 2)
        optimizer = torch.optim.Adam([*model.parameters(), *guide.start.parameters()], lr=1e-2)
        svi = CompiledSVI(model, guide, optimizer, Trace_ELBO(), compile=when)
        torch.manual_seed(2)
        losses = [svi.step(drawn(model, 6, seed=step)) for step in range(8)]
        assert svi.is_compiled is when
        seen.append([*losses, *guide.start.parameters()])
    assert_close(*seen, **EXACT)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"particles": 0}, {"rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="SemiAmortized needs"):
        made(rotated(), **({"steps": 1} | bad))


def test_the_optimum_of_the_ruler_is_where_the_steps_stay():
    model = rotated()
    x = drawn(model, 50)
    guide = made(model, 40, particles=64, rate=0.05)
    family = guide.family
    best = family.rows(diagonal_optimum(model, x)).detach()
    guide.start.rows = lambda _: best
    assert gap(model, guide, x) < 5e-3
