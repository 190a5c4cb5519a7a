"""A compiled step moves parameters as Python moves them, whatever the optimiser does besides.

Records run here as they stand, operation by operation: that finds all mistakes but the compiler's.
The slow tests at the end compile them.
"""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, SIZE
from descents import (
    EXACT,
    Toy,
    adam,
    both,
    data,
    decaying,
    descent,
    pyros_adam,
    require_same,
    schedule,
    without_the_compiler,
)
from pyro.infer import Trace_ELBO
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.testing import assert_close

from bayesvae.compiler import Step
from bayesvae.training import RowAdam


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


# Optimisers ----------------------------------------------------------------------------------


class OutOfPlace(optim.Optimizer):
    """Momentum in a tensor that is made anew at every step, as many optimisers have it."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    kept = self.state[p]
                    kept["momentum"] = 0.9 * kept.get("momentum", torch.zeros_like(p)) + p.grad
                    p.sub_(group["lr"] * kept["momentum"])


class Counting(optim.SGD):
    """Counts its steps in Python and slows down with them."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) + 1
            group["lr"] = 1e-2 / group["taken"]
        return super().step(closure)


def shrinking(programs):
    """An optimiser with a hook whose effect changes from step to step."""
    made = adam(programs)
    taken = []

    def shrink(*_):
        taken.append(None)
        with torch.no_grad():
            for p in programs.parameters():
                p.mul_(1 - 1e-3 * len(taken))

    made.register_step_post_hook(shrink)
    return made


def torchs(kind, **settings):
    return lambda programs: kind(programs.parameters(), **({"lr": 1e-2} | settings))


def two_groups(programs):
    groups = [
        {"params": programs.encoder.parameters(), "lr": 3e-2},
        {"params": programs.decoder.parameters(), "betas": (0.5, 0.9)},
    ]
    return optim.Adam(groups, lr=1e-2)


OPTIMIZERS = {
    "Adam": adam,
    "Adam, plain": torchs(optim.Adam, foreach=False),
    "Adam, foreach": torchs(optim.Adam, foreach=True),
    "Adam, amsgrad and decay": torchs(optim.Adam, amsgrad=True, weight_decay=0.1),
    "Adam, two groups": two_groups,
    "AdamW": torchs(optim.AdamW),
    "NAdam": torchs(optim.NAdam),
    "RAdam": torchs(optim.RAdam),
    "Adamax": torchs(optim.Adamax),
    "Adadelta": torchs(optim.Adadelta),
    "Adagrad": torchs(optim.Adagrad, lr_decay=0.1),
    "RMSprop": torchs(optim.RMSprop, centered=True, momentum=0.5),
    "Rprop": torchs(optim.Rprop),
    "ASGD": torchs(optim.ASGD),
    "SGD": torchs(optim.SGD, lr=1e-3),
    "SGD, momentum": torchs(optim.SGD, lr=1e-3, momentum=0.9, dampening=0.1),
    "SGD, Nesterov": torchs(optim.SGD, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.1),
    "a rate that is a tensor": lambda p: optim.Adam(p.parameters(), lr=torch.tensor(1e-2)),
    "state made anew": torchs(OutOfPlace, lr=1e-3),
    "a count in Python": torchs(Counting),
    "a hook with a count": shrinking,
    "Pyro's Adam": pyros_adam,
    "Pyro's ClippedAdam": lambda _: pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.9}),
    "Pyro's DCTAdam": lambda _: pyro.optim.DCTAdam({"lr": 1e-2}),
    "Pyro's AdagradRMSProp, no rate": lambda _: pyro.optim.AdagradRMSProp({}),
    "Pyro's SGD, clipped norm": lambda _: pyro.optim.SGD({"lr": 1e-2}, {"clip_norm": 0.5}),
    "Pyro's SGD, clipped value": lambda _: pyro.optim.SGD({"lr": 1e-2}, {"clip_value": 0.5}),
    "Pyro's ExponentialLR": decaying,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_steps_equal_steps_as_written_under(name):
    require_same(*both(optim=OPTIMIZERS[name], steps=12, between=schedule))


def test_a_fused_optimiser_differs_by_no_more_than_the_precision_of_its_step_count():
    runs = both(optim=torchs(optim.Adam, fused=True), steps=12)
    require_same(*runs, rtol=1e-4, atol=1e-6)


def test_a_gradient_is_clipped_once_in_the_step_that_compiles():
    """Clipping twice hides behind what is idempotent; halving is not."""
    losses = []
    for when in (False, True):
        torch.manual_seed(3)
        layer, halvings = nn.Linear(3, 1), []

        def halve(parameters, taken=halvings):
            taken.append(None)
            for p in parameters:
                p.grad.mul_(0.5)

        sgd = optim.SGD(layer.parameters(), lr=0.1)
        step = Step(
            lambda x, layer=layer: layer(x).square().mean(),
            [*layer.parameters()],
            [sgd],
            [layer],
            clip=halve,
            when=when,
        )
        losses.append([step(data()).item() for _ in range(6)])
    assert_close(*losses, **EXACT)


def test_an_optimiser_that_stays_out_of_the_graph_beside_one_that_joins_still_moves_its_part():
    moved = []
    for when in (False, True):
        torch.manual_seed(3)
        layer = nn.Linear(3, 1)
        hooked, plain = optim.SGD([layer.weight], lr=0.1), optim.Adam([layer.bias], lr=0.1)
        hooked.register_step_post_hook(lambda *_: None)
        step = Step(
            lambda x, layer=layer: layer(x).square().mean(),
            [*layer.parameters()],
            [hooked, plain],
            [layer],
            when=when,
        )
        losses = [step(data()).item() for _ in range(6)]
        moved.append([*losses, *layer.parameters()])
        assert step.compiled.is_compiled is when
    assert_close(*moved, **EXACT)


# Learning rates ------------------------------------------------------------------------------


def scheduled(make):
    """Steps a schedule once a step of the optimiser, from the first on."""

    def between(step, run):
        if step == 0:
            run.schedule = make(run.optim)
        else:
            run.schedule.step()

    return between


SCHEDULES = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "OneCycleLR, betas too": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rate", [1e-2, "tensor"])
def test_rates_stay_in_force_under(name, rate):
    def made(programs):
        lr = torch.tensor(1e-2) if rate == "tensor" else rate
        return optim.Adam(programs.parameters(), lr=lr)

    require_same(*both(optim=made, steps=12, between=scheduled(SCHEDULES[name])))


# Tables with sparse gradients ----------------------------------------------------------------


class Table(Toy):
    """Free rows, one a datum, beside the encoder."""

    def __init__(self, sparse=True, times=1, padding=None):
        super().__init__()
        self.rows = nn.Embedding(SIZE, 4, sparse=sparse, padding_idx=padding)
        self.times = times

    def model(self, x, index):
        pyro.module("rows", self.rows)
        super().model(x)

    def posterior(self, x):
        found = sum(self.rows((self.index + k) % SIZE) for k in range(self.times))
        loc, log_scale = (self.encoder(x) + found).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def guide(self, x, index):
        self.index = index
        super().guide(x)


def with_index(step, run):
    """Batches that ask for other rows at each step, and for one of them twice."""
    index = torch.randperm(SIZE)[:BATCH]
    index[1] = index[0]
    return data(), index


def rows_by(kind):
    """Pyro's wrapper of one optimiser for the table and another for all else."""

    def made(programs):
        def of(parameters, **settings):
            is_table = parameters[0] is programs.rows.weight
            return (kind if is_table else optim.Adam)(parameters, **settings)

        return pyro.optim.PyroOptim(of, {"lr": 1e-2})

    return made


@pytest.mark.parametrize("kind", [RowAdam, optim.SparseAdam, optim.SGD])
def test_rows_of_a_table_move_as_if_written_under(kind):
    require_same(*both(Table, rows_by(kind), steps=12, between=with_index))


def test_a_table_with_dense_gradients_moves_with_all_else():
    require_same(*both(lambda: Table(sparse=False), steps=12, between=with_index))


@pytest.mark.parametrize(
    ("table", "loss"),
    [
        (lambda: Table(times=2), Trace_ELBO),
        (Table, lambda: Trace_ELBO(num_particles=2)),
    ],
)
def test_a_table_that_is_asked_twice_in_a_step(table, loss):
    runs = both(table, rows_by(RowAdam), steps=12, loss=loss, between=with_index)
    require_same(*runs)


@pytest.mark.filterwarnings("ignore:CompiledSVI.step runs uncompiled:RuntimeWarning")
def test_a_padding_row_that_a_later_batch_asks_for_does_not_move():
    def padded_late(step, run):
        index = torch.tensor([5, 3, 1, 2, 7, 9])
        index[0] = 0 if step > 5 else 4
        return data(), index

    as_written, fast = (
        descent(
            lambda: Table(padding=0),
            rows_by(RowAdam),
            compile=compile,
            steps=12,
            between=padded_late,
        )
        for compile in (False, "auto")
    )
    require_same(as_written, fast)


# Losses that are not finite ------------------------------------------------------------------


def state_of(run):
    """Everything that a step may change."""
    optimizers = run.svi._optimizers()
    kept = [v for o in optimizers for state in o.state.values() for v in state.values()]
    rates = [group["lr"] for o in optimizers for group in o.param_groups]
    return copy.deepcopy([dict(run.programs.state_dict()), kept, rates])


FINITE = {name: OPTIMIZERS[name] for name in ("Adam", "SGD, momentum", "Pyro's ClippedAdam")}


@pytest.mark.parametrize("bad", [(0,), (1,), (5,), (0, 1, 5)])
@pytest.mark.parametrize("name", FINITE)
@pytest.mark.filterwarnings("ignore:Encountered")
def test_a_step_whose_loss_is_not_finite_moves_nothing_and_the_next_one_goes_on(name, bad):
    """As written, where it is recorded, where it is compared, and compiled."""
    runs = []
    for compile in (False, True):
        run = descent(optim=FINITE[name], steps=0, compile=compile)
        torch.manual_seed(5)
        for step in range(10):
            x, before = data(), state_of(run)
            if step in bad:
                with pytest.warns(UserWarning, match="this step moved nothing"):
                    run.svi.step(x.fill_(1e200))
                assert_close(state_of(run), before, rtol=0.0, atol=0.0)
            else:
                run.losses.append(run.svi.step(x))
        run.parameters = dict(run.programs.state_dict())
        runs.append(run)
    assert runs[1].svi.is_compiled
    require_same(*runs)


# Parts that differ from call to call ---------------------------------------------------------


class Alternating(Toy):
    """Trains all, or the encoder alone, as the caller says."""

    def model(self, x, all_of_it):
        if all_of_it:
            pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            mean = self.decoder(z) if all_of_it else self.decoder(z).detach()
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    def guide(self, x, all_of_it):
        super().guide(x)


ALTERNATING = {name: OPTIMIZERS[name] for name in ("Adam", "Pyro's Adam", "Pyro's ClippedAdam")}


@pytest.mark.parametrize("name", ALTERNATING)
def test_gradients_of_one_kind_of_call_do_not_reach_the_parameters_of_another(name):
    def between(step, run):
        return data(), step % 2 == 0

    require_same(*both(Alternating, ALTERNATING[name], steps=30, between=between))


# Compiled ------------------------------------------------------------------------------------

TO_COMPILE = ("Adam, two groups", "AdamW", "NAdam", "Adagrad", "RMSprop", "SGD, Nesterov")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", [*TO_COMPILE, "Pyro's ClippedAdam", "Pyro's SGD, clipped norm"])
def test_steps_of_compiled_code_equal_steps_as_written_under(name):
    require_same(*both(optim=OPTIMIZERS[name], steps=8))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR, betas too"])
def test_rates_stay_in_force_in_compiled_code_under(name):
    require_same(*both(steps=8, between=scheduled(SCHEDULES[name])))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_rows_of_a_table_move_in_compiled_code():
    require_same(*both(Table, rows_by(RowAdam), steps=8, between=with_index))
