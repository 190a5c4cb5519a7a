"""CompiledSVI as written is pyro.infer.SVI: the same losses, parameters and random stream."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import FEATURES, LATENTS
from descents import Statements, Toy, data, decaying, descent, pyros_adam, require_same, schedule
from pyro.infer import SVI, JitTrace_ELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.testing import assert_close

from bayesvae import CompiledSVI

# The drop-in ---------------------------------------------------------------------------------


class Discrete(Toy):
    """Binary latents, so that the guide learns by its score."""

    def prior(self):
        return dist.Bernoulli(torch.full((LATENTS,), 0.4)).to_event(1)

    def posterior(self, x):
        return dist.Bernoulli(logits=self.encoder(x)[:, :LATENTS]).to_event(1)


class Subsampled(Toy):
    """A plate that draws its own minibatch, and so scales what it sees."""

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x[rows])

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("z", self.posterior(x[rows]))


PYROS = {
    "Adam": pyros_adam,
    "ClippedAdam, decaying": lambda _: pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.9}),
    "SGD, clipped norm": lambda _: pyro.optim.SGD({"lr": 1e-2}, {"clip_norm": 0.5}),
    "SGD, clipped value": lambda _: pyro.optim.SGD({"lr": 1e-2}, {"clip_value": 0.5}),
    "a rate for each name": lambda _: pyro.optim.Adam(
        lambda name: {"lr": 1e-1 if name.startswith("encoder") else 1e-2}
    ),
    "ExponentialLR": decaying,
}

LOSSES = {
    "Trace_ELBO": Trace_ELBO,
    "3 particles": lambda: Trace_ELBO(num_particles=3),
    "3 particles at once": lambda: Trace_ELBO(
        num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
}


@pytest.mark.parametrize("optim", PYROS)
def test_steps_as_written_are_pyros_own_under(optim):
    runs = [
        descent(Toy, PYROS[optim], compile=compile, steps=5, between=schedule)
        for compile in (False, "pyro")
    ]
    require_same(*runs, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("programs", [Toy, Subsampled, Statements])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_as_written_are_pyros_own_under(loss, programs):
    runs = [
        descent(programs, pyros_adam, compile=compile, steps=4, loss=LOSSES[loss])
        for compile in (False, "pyro")
    ]
    require_same(*runs, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("loss", [name for name in LOSSES if "MeanField" not in name])
def test_score_function_steps_as_written_are_pyros_own_under(loss):
    runs = [
        descent(Discrete, pyros_adam, compile=compile, steps=4, loss=LOSSES[loss])
        for compile in (False, "pyro")
    ]
    require_same(*runs, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluate_loss_is_pyros_own_and_moves_nothing(loss):
    programs, x, values = Toy(), data(), []
    before = {k: v.clone() for k, v in programs.state_dict().items()}
    parts = programs.model, programs.guide, pyros_adam(), LOSSES[loss]()
    for svi in (SVI(*parts), CompiledSVI(*parts, compile=False)):
        torch.manual_seed(4)
        values.append(svi.evaluate_loss(x))
    assert isinstance(values[1], float)
    assert values[0] == values[1]
    assert_close(dict(programs.state_dict()), before, rtol=0.0, atol=0.0)


def test_a_step_returns_a_float_and_an_update_a_tensor_of_the_same_loss():
    programs = Toy()
    svi = CompiledSVI(programs.model, programs.guide, pyros_adam(), Trace_ELBO())
    assert isinstance(svi.step(data()), float)
    value = svi.update(data())
    assert value.shape == ()
    assert not value.requires_grad


def test_a_loss_of_two_parts_comes_back_as_the_pair_that_pyro_returns():
    def rws():
        return ReweightedWakeSleep(num_particles=2, vectorize_particles=False)

    ours, pyros = (descent(Toy, pyros_adam, compile=c, steps=3, loss=rws) for c in (False, "pyro"))
    assert all(isinstance(loss, tuple) for loss in ours.losses)
    require_same(ours, pyros, rtol=0.0, atol=0.0)


def test_an_automatic_guide_makes_its_parameters_in_the_first_step():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).expand([FEATURES]).to_event(1), obs=x)

    losses = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        svi = kind(model, AutoNormal(model), pyros_adam(), Trace_ELBO())
        losses.append([svi.step(data()) for _ in range(4)])
    assert losses[0] == losses[1]


def test_gradients_do_not_pile_up_on_parameters_that_nobody_trains():
    programs = Toy()
    optim = torch.optim.Adam(programs.decoder.parameters(), lr=1e-2)
    svi = CompiledSVI(programs.model, programs.guide, optim, Trace_ELBO(), compile=False)
    before = programs.encoder[0].weight.clone()
    svi.step(data())
    assert all(p.grad is None for p in programs.parameters())
    assert torch.equal(programs.encoder[0].weight, before)


def test_a_function_makes_the_optimiser_from_what_the_first_step_finds():
    def factory(programs):
        return lambda parameters: torch.optim.Adam(parameters, lr=1e-2)

    ours, given = (descent(Statements, each, compile=False) for each in (factory, pyros_adam))
    require_same(ours, given)


def test_a_loss_may_be_a_function():
    def loss(model, guide, *args):
        return Trace_ELBO().differentiable_loss(model, guide, *args)

    ours, elbo = (
        descent(optim=pyros_adam, compile=False, loss=each) for each in (lambda: loss, Trace_ELBO)
    )
    require_same(ours, elbo)


# Refusals ------------------------------------------------------------------------------------


def made(optim=None, loss=None, **named):
    programs = Toy()
    optim = pyros_adam() if optim is None else optim(programs)
    loss = Trace_ELBO() if loss is None else loss
    return CompiledSVI(programs.model, programs.guide, optim, loss, **named)


def lbfgs(programs):
    return torch.optim.LBFGS(programs.parameters())


REFUSED = {
    "a word for compile": ({"compile": "always"}, ValueError, 'compile takes "auto".*always'),
    "a number for compile": ({"compile": None}, ValueError, "compile takes .*None"),
    "LBFGS": ({"optim": lbfgs}, TypeError, "steps from gradients alone.*got LBFGS"),
    "a rate for an optimiser": ({"optim": lambda _: 0.1}, TypeError, "got float"),
    "Pyro's traced loss": ({"loss": JitTrace_ELBO()}, TypeError, "JitTrace_ELBO"),
    "a class for a loss": ({"loss": Trace_ELBO}, TypeError, r"got Trace_ELBO.*Trace_ELBO\(\)"),
    "a word for a loss": ({"loss": "elbo"}, TypeError, "got str"),
    "float16": ({"networks": torch.float16}, ValueError, "networks takes torch.bfloat16"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_when_made_and_not_in_the_first_step(what):
    named, kind, words = REFUSED[what]
    with pytest.raises(kind, match=words):
        made(**named)


def test_a_network_that_no_statement_shows_is_refused_where_pyro_trains_nothing_in_silence():
    network = nn.Linear(LATENTS, FEATURES)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), LATENTS), 1.0).to_event(1))

    svi = CompiledSVI(model, guide, pyros_adam(), Trace_ELBO())
    with pytest.raises(ValueError, match=r"nothing would train.*pyro.module"):
        svi.step(data())
    before = network.weight.clone()
    held = CompiledSVI(model, guide, torch.optim.SGD(network.parameters(), lr=0.1), Trace_ELBO())
    held.step(data())
    assert not torch.equal(network.weight, before)


def test_a_pair_without_parameters_is_refused():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="no parameter with a gradient"):
        CompiledSVI(model, model, pyros_adam(), Trace_ELBO()).step()
