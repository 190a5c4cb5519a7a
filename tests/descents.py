"""A small pair and its descent, as written and compiled, for the tests of all that is compiled."""

from collections import deque
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from catalog import BATCH, FEATURES, LATENTS
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.testing import assert_close

from bayesvae import CompiledSVI
from bayesvae.compiler import compiled_function, lowering

EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Toy(nn.Module):
    """A pair with dropout, a buffer, and a weight of its KL term that the caller gives."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(FEATURES, 5), nn.Tanh(), nn.Dropout(drop), nn.Linear(5, 2 * LATENTS)
        )
        self.decoder = nn.Linear(LATENTS, FEATURES)
        self.register_buffer("width", torch.tensor(0.7))

    def prior(self):
        return dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1)

    def likelihood(self, z):
        return dist.Normal(self.decoder(z), self.width).to_event(1)

    def posterior(self, x):
        loc, log_scale = self.encoder(x.reshape(len(x), -1).to(self.width)).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def model(self, x, beta=1.0):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=beta):
                z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x.reshape(len(x), -1))

    def guide(self, x, beta=1.0):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=beta):
            pyro.sample("z", self.posterior(x))


def adam(programs):
    return torch.optim.Adam(programs.parameters(), lr=1e-2)


def pyros_adam(programs=None):
    return pyro.optim.Adam({"lr": 1e-2})


def data():
    return torch.randn(BATCH, FEATURES)


def graph_alone(monkeypatch):
    """Runs records as they stand, operation by operation, where they would be compiled."""
    monkeypatch.setattr(lowering, "compiled", lambda recorded, eager_random=False: recorded)


def free_of_charge(monkeypatch):
    """Lets compiling pay as soon as a shape has been seen a few times."""
    monkeypatch.setattr(compiled_function, "EXPECTED_SECONDS", 0.0)
    monkeypatch.setattr(compiled_function, "MANY", 3)
    monkeypatch.setattr(compiled_function, "_costs", deque(maxlen=0))


def without_the_compiler(request, monkeypatch):
    """Makes compiling free, and runs records in its place unless the test asks for `compiler`."""
    free_of_charge(monkeypatch)
    if "compiler" not in request.fixturenames:
        graph_alone(monkeypatch)


def descent(build=Toy, optim=adam, *, compile=True, steps=9, loss=Trace_ELBO, between=None):
    """Steps from one seed; ``between(step, run)`` does what it likes and may return arguments.

    ``compile="pyro"`` stands for ``pyro.infer.SVI``.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    programs = build()
    run = SimpleNamespace(programs=programs, optim=optim(programs), losses=[])
    parts = programs.model, programs.guide, run.optim, loss()
    run.svi = SVI(*parts) if compile == "pyro" else CompiledSVI(*parts, compile=compile)
    for step in range(steps):
        args = between(step, run) if between else None
        run.losses.append(run.svi.step(*((data(),) if args is None else args)))
    run.parameters = {k: p.detach().clone() for k, p in programs.state_dict().items()}
    run.parameters |= {k: p.detach().clone() for k, p in pyro.get_param_store().items()}
    run.stream = torch.rand(())
    return run


def require_same(first, second, **tolerance):
    tolerance = tolerance or EXACT
    assert_close(first.losses, second.losses, equal_nan=True, **tolerance)
    assert_close(first.parameters, second.parameters, **tolerance)
    assert_close(first.stream, second.stream, rtol=0.0, atol=0.0)


def both(*args, **named):
    """The same descent as written and compiled."""
    as_written, fast = (descent(*args, compile=each, **named) for each in (False, True))
    assert fast.svi.is_compiled
    assert fast.svi.reason == ""
    return as_written, fast


def at(step, change):
    """Something that is done once, in mid-training."""
    return lambda now, run: change(run) if now == step else None


class Statements(Toy):
    """Parameters in pyro.param statements, one of them constrained."""

    def likelihood(self, z):
        weight = pyro.param("weight", lambda: torch.randn(LATENTS, FEATURES))
        width = pyro.param("noise", torch.tensor(0.5), constraint=dist.constraints.positive)
        return dist.Normal(z @ weight, width).to_event(1)


def decaying(programs):
    step = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.7}
    return pyro.optim.ExponentialLR(step)


def schedule(step, run):
    if step and hasattr(run.optim, "step"):
        run.optim.step()
