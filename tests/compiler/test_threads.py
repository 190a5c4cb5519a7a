"""Threads that train at once come out as each alone, and leave torch and Pyro as they were."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import FEATURES, LATENTS
from descents import without_the_compiler
from pyro.infer import util
from pyro.poutine.runtime import _PYRO_STACK
from torch.fx.proxy import TracerBase
from torch.testing import assert_close

from bayesvae import CompiledSVI, data, fit, likelihoods, log_evidence, networks
from bayesvae.compiler import unvalidated
from bayesvae.core.evaluation import evaluating
from bayesvae.pairs import PPCA, baselines, ppca

THREADS = 4


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    """Threads give way to each other a hundred times as often as usual."""
    without_the_compiler(request, monkeypatch)
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def _as_it_was():
    """Nothing global is another thing after a test."""

    def globals_of_torch_and_pyro():
        distribution = torch.distributions.Distribution
        return [
            distribution._validate_sample,
            distribution.__dict__["_validate_args"],
            TracerBase._filter_traceback_frames,
            torch.compiler._is_compiling_flag,
            util._fulldot,
            util.Dice.compute_expectation,
            pyro.infer.trace_elbo.torch_item,
            pyro.poutine.util.is_validation_enabled(),
            pyro.infer.util.is_validation_enabled(),
            list(_PYRO_STACK),
        ]

    before = globals_of_torch_and_pyro()
    yield
    assert globals_of_torch_and_pyro() == before


def at_once(*tasks):
    """What tasks return that begin together, a thread each."""
    start = Barrier(len(tasks))

    def begun(task):
        start.wait(20)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [each.result(120) for each in [pool.submit(begun, task) for task in tasks]]


def autoencoder(seed):
    """A pair without noise, so that what it comes to does not depend on who draws when."""
    torch.manual_seed(seed)
    likelihood = likelihoods.Normal(networks.MLP(LATENTS, (4,), FEATURES), scale=0.5)
    return baselines.autoencoder(likelihood, networks.MLP(FEATURES, (4,), LATENTS), LATENTS)


def trained(pair, x, compile):
    rows = data.Loader(x, 8)
    history = fit(pair, rows, epochs=12, compile=compile, progress=False)
    return [epoch.objective for epoch in history.epochs], pair.state_dict()


@pytest.mark.parametrize("compile", [False, True])
def test_fits_in_threads_end_where_each_does_alone(compile):
    x = torch.randn(24, FEATURES)
    alone = [trained(autoencoder(seed), x, compile) for seed in range(THREADS)]
    pairs = [autoencoder(seed) for seed in range(THREADS)]
    together = at_once(*(partial(trained, pair, x, compile) for pair in pairs))
    assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_compiled_code_of_one_thread_trains_beside_another_that_compiles(compiler):
    x = torch.randn(24, FEATURES)
    alone = [trained(autoencoder(seed), x, True) for seed in range(2)]
    pairs = [autoencoder(seed) for seed in range(2)]
    together = at_once(*(partial(trained, pair, x, True) for pair in pairs))
    assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_evaluators_beside_a_fit_estimate_as_alone():
    model = PPCA(torch.randn(FEATURES, LATENTS), torch.randn(FEATURES), 0.7)
    exact, x = ppca(model.requires_grad_(False)), torch.randn(40, FEATURES)

    def evaluated():
        return log_evidence(exact, x, 20, progress=False).value

    fits = [partial(trained, autoencoder(seed), x, "auto") for seed in range(2)]
    *_, first, second = at_once(*fits, evaluated, evaluated)
    assert_close(first, model.log_evidence(x), rtol=1e-10, atol=1e-10)
    assert_close(second, first, rtol=1e-10, atol=1e-10)


def test_handlers_of_one_thread_are_not_those_of_another():
    """Catches a program that runs within the traces of another."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        pyro.param("loc", torch.zeros(()))

    def losses(scale):
        x = torch.full((4,), scale)
        svi = CompiledSVI(model, guide, pyro.optim.SGD({"lr": 0.0}), pyro.infer.Trace_ELBO())
        return {svi.evaluate_loss(x) for _ in range(60)}

    found = at_once(*(partial(losses, float(scale)) for scale in range(THREADS)))
    assert all(len(each) == 1 for each in found)
    assert sorted(found, key=min) == found


def test_looks_at_values_are_back_when_the_last_thread_is_done():
    """Catches a thread that puts back what another had switched off."""
    second_in, first_out = Barrier(2), Barrier(2)

    def first():
        with unvalidated:
            second_in.wait(20)
        first_out.wait(20)

    def second():
        with evaluating(autoencoder(0)):
            second_in.wait(20)
            first_out.wait(20)
            assert not pyro.poutine.util.is_validation_enabled()

    at_once(first, second)
    assert pyro.poutine.util.is_validation_enabled()
