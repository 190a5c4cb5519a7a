"""What a user may do around a compiled step, and what is still Pyro's."""

import copy
import pickle
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from descents import Toy, adam, both, data, descent, require_same, without_the_compiler
from pyro import poutine
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO
from pyro.nn import PyroModule, PyroSample
from torch import nn

from bayesvae import CompiledSVI, CompileError
from bayesvae.compiler.captured_tensors import Reading


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


class Normed(Toy):
    """A layer that keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def posterior(self, x):
        return super().posterior(self.norm(x))


def test_recording_and_comparing_do_not_count_as_batches_of_a_running_mean():
    written, compiled = (descent(Normed, compile=each) for each in (False, True))
    assert compiled.svi.is_compiled
    assert written.programs.norm.num_batches_tracked == compiled.programs.norm.num_batches_tracked
    require_same(written, compiled)


def test_losses_in_single_precision_are_pyros_to_the_last_digit():
    torch.set_default_dtype(torch.float32)
    results = []
    for make in (SVI, CompiledSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        toy = Toy()
        svi = make(toy.model, toy.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        x = data()
        results.append([svi.step(x), svi.evaluate_loss(x), svi.step(x)])
    assert results[0] == results[1]


def test_a_loss_of_several_numbers_is_evaluated_as_pyro_does():
    toy = Toy()
    x, told = data(), []
    for make in (SVI, CompiledSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        svi = make(toy.model, toy.guide, pyro.optim.Adam({"lr": 1e-2}), ReweightedWakeSleep(2))
        told.append(svi.evaluate_loss(x))
    assert told[0] == told[1]
    assert len(told[1]) == 2


def helped(z):
    """Uses a network that no program holds."""
    return Distant.network(z)


class Distant(Toy):
    """Calls a function that uses a network of its own."""

    network = None

    def __init__(self):
        super().__init__()
        type(self).network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))

    def likelihood(self, z):
        return dist.Normal(helped(z), self.width).to_event(1)


def test_the_mode_of_a_network_that_no_program_holds_is_respected():
    def modes(step, run):
        run.programs.network.train(step < 6)

    require_same(*both(Distant, between=modes, steps=12))


def test_handlers_around_a_step_are_in_force():
    def scaled(step, run):
        if step == 5:
            take = run.svi.step

            def under_a_scale(x):
                with poutine.scale(scale=0.1):
                    return take(x)

            run.svi.step = under_a_scale

    require_same(*both(between=scaled))


class Counted(torch.optim.Adam):
    """Counts how often Python steps."""

    taken = 0

    def step(self, closure=None):
        type(self).taken += 1
        return super().step(closure)


def test_an_optimiser_whose_state_was_loaded_is_compiled_again():
    taken = []

    def reloaded(step, run):
        taken.append(Counted.taken)
        if step == 6:
            run.optim.load_state_dict(copy.deepcopy(run.optim.state_dict()))

    def counted(programs):
        return Counted(programs.parameters(), lr=1e-2)

    require_same(*both(optim=counted, between=reloaded, steps=14))
    python = [after - before for before, after in pairwise(taken[14:])]
    assert python[3:6] == [0, 0, 0]
    assert sum(python[6:8]) > 0
    assert python[8:] == [0] * 5


class Weights(PyroModule):
    """A network with priors on its weights, whose distributions exist before any step."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](3, 1)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.layer.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x):
        mean = self.layer(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=x.sum(-1))


def test_a_bayesian_network_compiles():
    model = Weights()
    guide = pyro.infer.autoguide.AutoDiagonalNormal(model)
    svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(), compile=True)
    for _ in range(5):
        svi.step(data())
    assert svi.is_compiled


class Flickering(Toy):
    """Trains its encoder every other time, by a counter in Python."""

    calls = 0

    def posterior(self, x):
        self.calls += 1
        if self.calls % 2:
            return super().posterior(x)
        return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)


def test_other_parameters_with_a_gradient_than_recorded_are_told_in_words():
    with pytest.raises(CompileError, match=r"other parameters|other numbers"):
        descent(Flickering, adam)


def test_a_value_that_changes_at_every_call_is_told_in_words():
    class Counted(Toy):
        def model(self, x, step):
            super().model(x)

        def guide(self, x, step):
            super().guide(x)

    with pytest.raises(CompileError, match="pass values that change as floats or tensors"):
        descent(Counted, between=lambda step, run: (data(), step), steps=100)


def a_schedule(toy):
    return torch.optim.lr_scheduler.StepLR(adam(toy), 1)


@pytest.mark.parametrize("make", [lambda toy: pyro.optim.Adam, a_schedule, lambda toy: object()])
def test_what_is_no_optimiser_is_refused(make):
    toy = Toy()
    with pytest.raises(TypeError, match=r"CompiledSVI takes a pyro\.optim optimiser"):
        CompiledSVI(toy.model, toy.guide, make(toy), Trace_ELBO())


def turned(layer):
    layer.weight.data = layer.weight.data.t()


def shortened(layer):
    layer.table.resize_(2, 3)


def trimmed(layer):
    layer.table.data = layer.table.data[:2]


@pytest.mark.parametrize(
    "change", [turned, shortened, trimmed, lambda layer: layer.table.t_(), nn.Module.double]
)
def test_a_tensor_that_is_laid_out_anew_where_it_lies_is_not_read_by_older_code(change):
    layer = nn.Linear(3, 3, dtype=torch.float32)
    layer.register_buffer("table", torch.randn(3, 3, dtype=torch.float32))
    reading = Reading([layer.weight, layer.table], [layer])
    assert reading.now() is not None
    change(layer)
    assert reading.now() is None


def test_tensors_are_read_in_inference_mode_as_outside_of_it():
    layer = nn.Linear(3, 3)
    reading = Reading([layer.weight], [layer])
    with torch.inference_mode():
        assert reading.now() is not None


@pytest.mark.parametrize("steps", [0, 9])
def test_a_copy_steps_on_its_own_and_as_the_original_does(steps):
    run = descent(steps=steps)
    twin, toy = copy.deepcopy((run.svi, run.programs))
    assert not twin.is_compiled
    losses = []
    for svi in (run.svi, twin):
        pyro.set_rng_seed(5)
        losses.append([svi.step(data()) for _ in range(9)])
    assert twin.is_compiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    for ours, theirs in zip(run.programs.parameters(), toy.parameters(), strict=True):
        assert ours is not theirs
        assert torch.allclose(ours, theirs, rtol=1e-10)


def test_a_copy_of_compiled_code_leaves_it_behind(compiler):
    run = descent(steps=6)
    assert run.svi.is_compiled
    assert not copy.deepcopy(run.svi).is_compiled


def test_a_pickle_holds_settings_and_no_compiled_code():
    assert pickle.dumps(descent(steps=0).svi)  # later ones hold Pyro's weak references
