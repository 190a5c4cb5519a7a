"""What a program changes besides, or is handed in odd ways, is neither lost nor done twice."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from descents import EXACT, Toy, adam, both, data, descent, require_same, without_the_compiler
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal
from torch import nn
from torch.testing import assert_close

from bayesvae import CompiledSVI, CompileError, LogJoint, Pair


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


class Tempered(Toy):
    """Its KL term is weighed by a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("beta", torch.tensor(0.1))

    def model(self, x):
        super().model(x, self.beta)

    def guide(self, x):
        super().guide(x, self.beta)


def test_a_buffer_that_is_assigned_anew_at_every_step_is_read_at_every_step():
    def annealed(step, run):
        run.programs.beta = torch.tensor(0.1 + step / 20)

    require_same(*both(Tempered, between=annealed, steps=12))


class Widened(Toy):
    """Its likelihood is as wide as a buffer says."""

    def likelihood(self, z):
        return dist.Normal(self.decoder(z), self.width).to_event(1)


def test_a_buffer_that_the_log_joint_reads_may_be_assigned_anew():
    toy = Widened()
    written, fast = (
        LogJoint(Pair(toy.model, toy.guide), 2, compile=when) for when in (False, True)
    )
    for step in range(6):
        toy.width = torch.tensor(1.0 + step)
        x, z = data(), {"z": torch.randn(2, 6, 2)}
        assert_close(fast(z, x), written(z, x), **EXACT)


class Averaging(Toy):
    """Keeps a running mean of the data, in one of several ways."""

    def __init__(self, kept, change):
        super().__init__()
        self.change = change
        kept(self)

    def model(self, x):
        with torch.no_grad():
            self.change(self, x)
        super().model(x - self.mean)


def as_parameter(module):
    module.mean = nn.Parameter(torch.zeros(3), requires_grad=False)


def as_attribute(module):
    module.mean = torch.zeros(3)


def as_buffer(module):
    module.register_buffer("mean", torch.zeros(3))


def in_place(module, x):
    module.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)


def assigned(module, x):
    module.mean = 0.9 * module.mean + 0.1 * x.mean(0)


@pytest.mark.parametrize("kept", [as_parameter, as_attribute, as_buffer])
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store:UserWarning")
def test_what_a_program_changes_in_place_is_changed_once_a_step(kept):
    require_same(*both(lambda: Averaging(kept, in_place), steps=10))


@pytest.mark.parametrize("kept", [as_attribute, as_buffer])
def test_a_program_that_assigns_tensors_stays_as_written_and_loses_none(kept):
    with pytest.warns(RuntimeWarning, match=r"another tensor in the place of \['mean'\]"):
        runs = [
            descent(lambda: Averaging(kept, assigned), compile=when, steps=12)
            for when in (False, "auto")
        ]
    require_same(*runs)
    assert not runs[1].svi.is_compiled


def test_a_tensor_that_no_module_holds_is_not_changed_behind_the_users_back():
    mean = torch.zeros(3)

    def model(x):
        mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
            pyro.sample("x", dist.Normal(z - mean, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile=True)
    with pytest.raises(CompileError, match=r"no module holds, at .*mean\.mul_"):
        svi.step(data())


@pytest.mark.filterwarnings("ignore:.*an argument asks for a gradient:RuntimeWarning")
def test_gradients_into_the_arguments_are_not_lost():
    losses = []
    for when in (False, "auto"):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        toy, front = Toy(), nn.Linear(3, 3)
        svi = CompiledSVI(toy.model, toy.guide, adam(toy), Trace_ELBO(), compile=when)
        sgd = torch.optim.SGD(front.parameters(), lr=0.01)
        seen = []
        for _ in range(10):
            sgd.zero_grad()
            seen.append(svi.step(front(data())))
            sgd.step()
        losses.append([*seen, *front.parameters()])
    assert "asks for a gradient" in svi.reason
    assert_close(*losses, **EXACT)


def free(x):
    a, c = pyro.param("a", torch.tensor(0.5)), pyro.param("c", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a + c, 1.0).expand([3]).to_event(1), obs=x)


@pytest.mark.parametrize("optim", [pyro.optim.SGD, pyro.optim.Adam])
def test_a_statement_of_a_parameter_that_is_frozen_later_is_respected(optim):
    seen = []
    for make in (SVI, CompiledSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        extra = {"compile": True} if make is CompiledSVI else {}
        svi = make(free, lambda x: None, optim({"lr": 0.1}), Trace_ELBO(), **extra)
        losses = []
        for step in range(16):
            if step == 6:
                pyro.param("a").unconstrained().requires_grad_(False)
            losses.append(svi.step(data()))
        seen.append([*losses, pyro.param("a").detach(), pyro.param("c").detach()])
    assert_close(*seen, **EXACT)


class Settings:
    """Something with an inside."""

    beta = 0.1


def test_an_object_with_an_inside_is_no_plain_argument():
    settings, toy = Settings(), Toy()
    svi = CompiledSVI(
        lambda x, s: toy.model(x, s.beta),
        lambda x, s: toy.guide(x, s.beta),
        adam(toy),
        Trace_ELBO(),
        compile=True,
    )
    with pytest.raises(CompileError, match="neither a tensor nor a plain value"):
        svi.step(data(), settings)


@pytest.mark.parametrize("auto", [AutoMultivariateNormal, AutoLowRankMultivariateNormal])
def test_a_guide_that_sets_itself_up_in_the_first_step_compiles(auto):
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    seen = []
    for make in (SVI, CompiledSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        guide = auto(model)
        extra = {"compile": True} if make is CompiledSVI else {}
        svi = make(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), **extra)
        seen.append([svi.step(data()) for _ in range(10)])
    assert svi.is_compiled
    assert_close(*seen, **EXACT)


def test_a_float_beside_a_model_in_double_precision_is_as_exact_as_the_model():
    torch.set_default_dtype(torch.float32)
    seen = []
    for when in (False, True):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        toy = Toy().double()
        toy.prior = lambda: dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1)
        sgd = torch.optim.SGD(toy.parameters(), lr=0.01)  # which counts no steps
        svi = CompiledSVI(toy.model, toy.guide, sgd, Trace_ELBO(), compile=when)
        seen.append([svi.step(torch.randint(3, (6, 3)), 0.1 + k / 10) for k in range(8)])
    assert_close(*seen, **EXACT)


def test_modules_may_change_their_type_between_any_two_steps():
    for change in range(4):
        torch.set_default_dtype(torch.float32)
        pyro.clear_param_store()
        toy = Toy()
        toy.prior = lambda toy=toy: dist.Normal(toy.width.new_zeros(2), 1.0).to_event(1)
        sgd = torch.optim.SGD(toy.parameters(), lr=0.01)
        svi = CompiledSVI(toy.model, toy.guide, sgd, Trace_ELBO(), compile=True)
        for step in range(6):
            if step == change:
                toy.double()
                pyro.clear_param_store()
            svi.step(torch.randint(3, (6, 3)))


def test_many_shapes_in_turn_do_not_push_out_the_first():
    toy = Toy()
    svi = CompiledSVI(toy.model, toy.guide, adam(toy), Trace_ELBO(), compile=True)
    for step in range(100):
        svi.step(torch.randn(1 + step % 12, 3))
    assert svi.is_compiled


def test_a_table_whose_rows_are_renormalised_stays_as_written():
    class Renormed(Toy):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 2, sparse=True, max_norm=0.2)

        def posterior(self, x):
            pyro.module("table", self.table)
            loc = self.table(torch.arange(len(x)) % 5)
            return dist.Normal(loc, 1.0).to_event(1)

    def both_kinds(programs):
        return pyro.optim.PyroOptim(torch.optim.SGD, {"lr": 0.1})

    with pytest.warns(RuntimeWarning, match="max_norm"):
        runs = [descent(Renormed, both_kinds, compile=when, steps=12) for when in (False, "auto")]
    require_same(*runs)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_step_without_gradients_is_refused_compiled_or_not(off):
    toy = Toy()
    svi = CompiledSVI(toy.model, toy.guide, adam(toy), Trace_ELBO(), compile=True)
    for _ in range(6):
        with off(), pytest.raises(RuntimeError, match="switched off"):
            svi.step(data())
        svi.step(data())
