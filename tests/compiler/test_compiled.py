"""Nothing of a compiled step goes stale, and compiling happens where it pays.

Records run here as they stand, operation by operation, but in the tests that ask for a compiler.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
from catalog import BATCH, FEATURES, LATENTS
from descents import (
    Statements,
    Toy,
    at,
    both,
    data,
    descent,
    pyros_adam,
    require_same,
    without_the_compiler,
)
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.testing import assert_close

from bayesvae.compiler import Compiled, CompileError, compiled_function, lowering


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


# Nothing goes stale: modules, parameters, optimisers -----------------------------------------


def a_buffer_in_place(run):
    run.programs.width.mul_(2)


def a_buffer_replaced(run):
    run.programs.width = torch.tensor(1.9)


def a_loaded_state(run):
    run.programs.load_state_dict({k: v + 0.3 for k, v in run.programs.state_dict().items()})


def a_frozen_part(run):
    run.programs.decoder.requires_grad_(False)


def a_replaced_parameter(run):
    run.programs.decoder.weight = nn.Parameter(torch.ones(FEATURES, LATENTS))


def a_replaced_network(run):
    run.programs.decoder = nn.Linear(LATENTS, FEATURES)


def a_rate(run):
    run.optim.param_groups[0]["lr"] = 0.1


def betas(run):
    run.optim.param_groups[0]["betas"] = (0.1, 0.2)


def a_decay(run):
    run.optim.param_groups[0]["weight_decay"] = 0.3


def a_loaded_optimiser(run):
    state = copy.deepcopy(run.optim.state_dict())
    for kept in state["state"].values():
        kept["exp_avg"] *= -3
        kept["step"] *= 7
    run.optim.load_state_dict(state)


def an_optimiser_begun_anew(run):
    run.optim.state.clear()


def a_schedule_made_late(run):
    run.schedule = lr_scheduler.ExponentialLR(run.optim, 0.5)


CHANGES = [
    a_buffer_in_place,
    a_buffer_replaced,
    a_loaded_state,
    a_frozen_part,
    a_replaced_parameter,
    a_replaced_network,
    a_rate,
    betas,
    a_decay,
    a_loaded_optimiser,
    an_optimiser_begun_anew,
    a_schedule_made_late,
]


UNREGISTERED = "ignore:.*was not registered in the param store:UserWarning"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings(UNREGISTERED)
def test_goes_stale(change):
    require_same(*both(steps=10, between=at(5, change)))


@pytest.mark.filterwarnings(UNREGISTERED)
def test_a_part_that_is_frozen_until_mid_training_moves_then():
    def thawing(step, run):
        run.programs.decoder.requires_grad_(step >= 5)

    require_same(*both(steps=12, between=thawing))


def test_parameters_given_to_an_optimiser_in_mid_training_begin_to_move():
    def encoder_only(programs):
        return optim.Adam(programs.encoder.parameters(), lr=1e-2)

    def decoder_too(run):
        run.optim.add_param_group({"params": [*run.programs.decoder.parameters()]})

    require_same(*both(optim=encoder_only, steps=12, between=at(5, decoder_too)))


def a_statement_set(run):
    pyro.get_param_store()["weight"] = torch.full((LATENTS, FEATURES), 3.0)


def a_store_loaded(run):
    state = pyro.get_param_store().get_state()
    doubled = {k: (2 * p.detach()).requires_grad_() for k, p in state["params"].items()}
    pyro.get_param_store().set_state({**state, "params": doubled})


def a_store_cleared(run):
    pyro.clear_param_store()


@pytest.mark.parametrize("change", [a_statement_set, a_store_loaded, a_store_cleared])
def test_goes_stale_in_the_parameter_store(change):
    require_same(*both(Statements, pyros_adam, steps=10, between=at(5, change)))


# Nothing goes stale: arguments ---------------------------------------------------------------


def a_weight_that_rises(step, run):
    return data(), (step + 1) / 10


def a_weight_of_numpy(step, run):
    return data(), np.linspace(0.1, 1.0, 10)[step]


def a_tensor_weight(step, run):
    return data(), torch.tensor((step + 1) / 10)


def a_short_last_batch(step, run):
    return (data()[: BATCH - step % 3],)


def another_dtype(step, run):
    return (data().float() if step > 4 else data(),)


ARGUMENTS = [
    a_weight_that_rises,
    a_weight_of_numpy,
    a_tensor_weight,
    a_short_last_batch,
    another_dtype,
]


@pytest.mark.parametrize("between", ARGUMENTS)
def test_is_baked_into_a_compiled_step(between):
    require_same(*both(steps=10, between=between))


def test_a_schedule_made_by_numpy_is_one_shape_of_inputs():
    fast = descent(steps=6, between=a_weight_of_numpy)
    assert fast.svi.is_compiled


class TwoViews(Toy):
    """The guide sees one version of the data, the model another."""

    def model(self, x, clean):
        super().model(clean)

    def guide(self, x, clean):
        super().guide(x)


def test_two_arguments_that_were_one_tensor_when_recorded_are_two_later():
    def between(step, run):
        x = data()
        return (x, x) if step < 5 else (x, data())

    require_same(*both(TwoViews, steps=10, between=between))


class OwnData(Toy):
    """The model reads data that it holds, the guide those that it is given."""

    def __init__(self):
        super().__init__()
        self.register_buffer("held", data())

    def model(self, x):
        super().model(self.held)


def test_an_argument_that_was_a_buffer_when_recorded_is_another_tensor_later():
    def between(step, run):
        return (run.programs.held if step < 5 else data(),)

    require_same(*both(OwnData, steps=10, between=between))


class WithTruth(Toy):
    """Does something else for True than for 1."""

    def guide(self, x, how):
        super().guide(x, 0.5 if how is True else 1.0)

    def model(self, x, how):
        super().model(x)


def test_true_and_one_are_different_arguments():
    def between(step, run):
        return data(), (True if step < 5 else 1)

    require_same(*both(WithTruth, steps=10, between=between))


class Keyed(Toy):
    """Takes its batch as a dict."""

    def model(self, batch):
        super().model(batch["x"], batch["beta"])

    def guide(self, batch):
        super().guide(batch["x"], batch["beta"])


def test_arguments_in_a_dict_or_by_name_are_found():
    require_same(*both(Keyed, between=lambda step, run: ({"x": data(), "beta": (step + 1) / 10},)))
    programs = Toy()
    named = descent(steps=0, build=lambda: programs)
    for step in range(5):
        named.svi.step(x=data(), beta=(step + 1) / 10)
    assert named.svi.is_compiled


# Modes and random numbers, in compiled code --------------------------------------------------


@pytest.mark.usefixtures("compiler")
def test_compiled_steps_draw_anew_follow_the_seed_and_drop_out_in_training_alone(
    monkeypatch,
):
    made, compiling = [], lowering.compiled

    def noted(*args):
        made.append(compiling(*args))
        return made[-1]

    monkeypatch.setattr(lowering, "compiled", noted)

    def still(programs):
        return optim.SGD(programs.parameters(), lr=0.0)

    def modes(step, run):
        run.programs.train(step % 9 < 5)
        if step in (4, 9):
            torch.manual_seed(8)
        return (torch.ones(BATCH, FEATURES),)

    as_written, fast = both(lambda: Toy(drop=0.5), still, steps=18, between=modes)
    assert len(made) == 2
    require_same(as_written, fast)
    training = fast.losses[:5] + fast.losses[9:14]
    assert len(set(training)) == 9
    assert fast.losses[4] == fast.losses[9]


# Without a compiler --------------------------------------------------------------------------


def test_without_a_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lowering, "missing_compiler", lambda: "there is none; install g++")
    with pytest.warns(RuntimeWarning, match="install g") as caught:
        run = descent(compile="auto", steps=12)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    require_same(descent(compile=False, steps=12), run)
    with pytest.raises(CompileError, match="install g"):
        descent()


def test_a_failing_compiler_is_named_and_the_step_is_taken_as_written(monkeypatch):
    def broken(*_):
        raise RuntimeError("no space left\nand more")

    monkeypatch.setattr(lowering, "compiled", lambda *_: broken)
    with pytest.warns(RuntimeWarning, match="compiling failed: no space left"):
        run = descent(compile="auto", steps=12)
    require_same(descent(compile=False, steps=12), run)


# Whether it pays -----------------------------------------------------------------------------


def test_short_runs_are_not_compiled(monkeypatch):
    monkeypatch.undo()
    run = descent(compile="auto", steps=12)
    assert not run.svi.is_compiled
    assert run.svi.reason == ""


def test_what_pays_is_compiled_in_silence():
    run = descent(compile="auto", steps=12)
    assert run.svi.is_compiled
    require_same(descent(compile=False, steps=12), run)


@pytest.mark.parametrize(("seconds", "stays"), [(0.1, True), (5.0, False)])
def test_compiled_code_that_is_slower_is_given_up_in_silence(monkeypatch, seconds, stays):
    now = [0.0]

    def taking(seconds, outputs):
        now[0] += seconds
        return outputs

    monkeypatch.setattr(compiled_function, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(
        lowering, "compiled", lambda record, _: lambda *x: taking(seconds, record(*x))
    )
    square = Compiled(lambda x: [x**2], eager=lambda x: taking(1.0, [x**2]))
    for step in range(40):
        assert square(torch.tensor(float(step)))[0] == step**2
    assert square.is_compiled is stays
    assert bool(square.reason) is not stays


@pytest.mark.parametrize("compile", ["auto", True])
def test_more_shapes_than_are_kept_run_as_written(compile, monkeypatch):
    made = []
    monkeypatch.setattr(lowering, "compiled", lambda record, _: made.append(record) or record)
    cube = Compiled(lambda x: [x**3], when=compile)
    for size in range(2 * compiled_function.SHAPES):
        for _ in range(8):
            x = torch.randn(size + 1)
            assert_close(cube(x)[0], x**3)
    assert len(made) == compiled_function.SHAPES
