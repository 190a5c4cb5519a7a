"""What a record holds, which records are alike, and where in the user's code they part."""

import random
import warnings
from itertools import count

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from catalog import LATENTS
from descents import Toy, descent, require_same, without_the_compiler
from torch import nn
from torch.testing import assert_close

from bayesvae.compiler import Compiled, CompileError, decided, lowering
from bayesvae.compiler.agreement import first_difference
from bayesvae.compiler.lowering import missing_compiler
from bayesvae.compiler.program_lines import place_of
from bayesvae.compiler.tracing import chained, record


@pytest.fixture(autouse=True)
def _settings(request, monkeypatch):
    without_the_compiler(request, monkeypatch)


def line_of(name):
    """Where in this file a line ends in ``# HERE`` and a name."""
    with open(__file__) as text:
        (line,) = (n for n, each in enumerate(text, 1) if each.rstrip().endswith(f"# HERE {name}"))
    return f"test_tracing.py:{line}"


# Records -------------------------------------------------------------------------------------


def test_a_record_does_the_same_to_other_tensors():
    square = record(lambda x, y: [x * y, x.sum()], [torch.ones(3), torch.ones(3)])
    x, y = torch.randn(2, 3)
    assert_close(square(x, y), [x * y, x.sum()])
    assert square.captured == ()


def test_a_record_reads_captured_tensors_when_it_runs():
    layer = nn.Linear(2, 2)
    applied = record(lambda x: [layer(x)], [torch.ones(1, 2)])
    assert {id(t) for t in applied.captured} == {id(p) for p in layer.parameters()}
    with torch.no_grad():
        layer.weight.fill_(7.0)
    x = torch.randn(1, 2)
    assert_close(applied(x, *applied.captured)[0], layer(x).detach())


def test_a_tensor_that_is_read_twice_is_captured_once():
    kept = torch.ones(2)
    doubled = record(lambda x: [x * kept + kept], [torch.ones(2)])
    assert len(doubled.captured) == 1


def test_a_number_written_in_the_program_is_not_captured():
    assert record(lambda x: [x * torch.tensor(0.5)], [torch.ones(2)]).captured == ()


def test_a_record_of_one_tensor_given_twice_keeps_the_two_apart():
    x, y = torch.randn(2, 3)
    product = record(lambda a, b: [a * b.exp()], [x, x])
    assert_close(product(x, y, *product.captured)[0], x * y.exp())


def test_a_record_of_a_captured_tensor_that_is_given_too_keeps_the_two_apart():
    held, y = torch.randn(2, 3)
    product = record(lambda a: [a.exp() * held], [held])
    assert_close(product(y, *product.captured)[0], y.exp() * held)


def test_recording_leaves_the_stream_of_random_numbers_and_pyros_checks_alone():
    before = torch.get_rng_state()
    noise = record(lambda x: [x + torch.randn(3)], [torch.zeros(3)])
    assert torch.equal(torch.get_rng_state(), before)
    draws = [noise(torch.zeros(3))[0] for _ in range(2)]
    assert not torch.equal(*draws)
    torch.set_rng_state(before)
    assert torch.equal(torch.randn(3), draws[0])
    with pytest.raises(ValueError, match="constraint"):
        dist.Normal(0.0, torch.tensor(-1.0))


def test_a_record_tracks_no_gradients_of_its_own():
    x = torch.ones(2, requires_grad=True)
    assert not record(lambda a: [a * 2], [x])(x)[0].requires_grad


def test_a_value_that_python_asks_for_is_refused():
    with pytest.raises(RuntimeError, match="get value out of a tracing tensor"):
        record(lambda x: [x if x.sum() > 0 else -x], [torch.ones(2)])


def test_a_decision_of_the_program_is_taken_once():
    def signed(x):
        return [x if decided(lambda: bool((x > 0).all())) else -x]

    x = torch.ones(2)
    assert_close(record(signed, [x])(-x)[0], -x)
    assert_close(signed(-x)[0], x)


def test_chained_records_run_one_after_the_other_with_inputs_of_their_own():
    slope, shift = torch.tensor(3.0), torch.tensor(5.0)
    first = record(lambda x: [x * slope, x + 1], [torch.ones(2)])
    second = record(
        lambda a, b, rate: [a * rate + b * shift * slope],
        [torch.ones(2), torch.ones(2), torch.ones(())],
    )
    both = chained(first, second)
    assert {id(t) for t in both.captured} == {id(slope), id(shift)}
    x, rate = torch.randn(2), torch.tensor(0.1)
    expected = x * slope * rate + (x + 1) * shift * slope
    assert_close(both(x, rate, *both.captured)[0], expected)


def test_a_tensor_that_a_record_changes_is_changed():
    count = torch.zeros(())

    def counting(x):
        count.add_(1)
        return [x * count]

    counted = record(counting, [torch.ones(2)])
    count.zero_()
    values = [counted(torch.ones(2), *counted.captured)[0][0].item() for _ in range(3)]
    assert values == [1.0, 2.0, 3.0]
    assert count == 3


# Where compiled code reads -------------------------------------------------------------------


class Weighed(nn.Module):
    """Reads a parameter and a buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("shift", torch.randn(3, 4))

    def forward(self, x):
        return x.to(self.weight) * self.weight + self.shift


def other_buffer(make):
    def change(weighed):
        weighed.shift = make()

    return change


def other_storage(weighed):
    weighed.weight.data = torch.randn(4, 3).t()


ELSEWHERE = {
    "a buffer of another dtype": other_buffer(lambda: torch.randn(3, 4).float()),
    "a buffer of another shape": other_buffer(lambda: torch.randn(4)),
    "a buffer with other strides": other_buffer(lambda: torch.randn(4, 3).t()),
    "a parameter with other strides": other_storage,
    "a module of another dtype": lambda weighed: weighed.float(),
}


def require_right(change, later=lambda: torch.arange(12).reshape(3, 4)):
    weighed = Weighed()
    run = Compiled(lambda x: [weighed(x).exp()], [weighed], when=True)
    for step in range(8):
        if step == 5:
            change(weighed)
        x = later() if step > 4 else torch.arange(12).reshape(3, 4)
        assert_close(run(x)[0], weighed(x).exp().detach())
    assert run.is_compiled


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_compiled_code_reads_past_the_end_of(name):
    require_right(ELSEWHERE[name])


@pytest.mark.usefixtures("compiler")
def test_compiled_code_takes_data_that_lie_otherwise_in_memory():
    require_right(lambda weighed: None, lambda: torch.arange(12).reshape(4, 3).t())


def test_a_record_takes_data_that_lie_otherwise_in_memory():
    cosine = Compiled(lambda x: [x.reshape(len(x), -1).cos()], when=True)
    for step in range(8):
        x = torch.randn(4, 3, 2, 2)
        x = x if step < 5 else x.to(memory_format=torch.channels_last)
        assert_close(cosine(x)[0], x.flatten(1).cos())
    assert cosine.is_compiled


# Where records part --------------------------------------------------------------------------

TICKS = count(1)


def ticking():
    return next(TICKS)


def of_values(x):
    return [x * ticking()]  # HERE a value


def of_shapes(x):
    return [x.new_ones(ticking())]  # HERE a shape


def of_operations(x):
    return [x.sin() if ticking() % 2 else x.cos()]  # HERE an operation


def of_tensors(x):
    return [x * torch.tensor(1.0 * ticking())]  # HERE a tensor


PARTING = {
    "a value": of_values,
    "a shape": of_shapes,
    "an operation": of_operations,
    "a tensor": of_tensors,
}


@pytest.mark.parametrize("name", PARTING)
def test_two_records_part_at(name):
    records = [record(PARTING[name], [torch.ones(3)]) for _ in range(2)]
    told = first_difference(*records)
    assert line_of(name) in told
    assert told.endswith(f"# HERE {name}")


def test_records_of_one_program_do_not_part():
    layer = nn.Linear(3, 3)
    records = [
        record(lambda x: [layer(x).exp() * torch.tensor(0.5), torch.randn(3)], [torch.ones(3)])
        for _ in range(2)
    ]
    assert first_difference(*records) == ""


def failing(x):
    return torch.ones(2) @ torch.ones(3)  # HERE a failure


def test_the_place_of_an_error_is_the_last_line_outside_of_the_libraries():
    with pytest.raises(RuntimeError) as error:
        record(failing, [torch.ones(1)])
    assert line_of("a failure") in place_of(error.value)


def test_a_compiler_is_asked_for_by_name_where_none_is_found(monkeypatch):
    monkeypatch.setattr(lowering.shutil, "which", lambda name: None)
    assert "install one (g++ or clang++)" in missing_compiler()
    monkeypatch.setattr(lowering.shutil, "which", lambda name: name == "g++" or None)
    assert missing_compiler() is None


# What a trace cannot hold --------------------------------------------------------------------

POPPED = list(range(10_000))
UNSTEADY = {
    "a counter": lambda loc: loc * (1 + 0.01 * ticking()),  # HERE a counter
    "random": lambda loc: loc * random.random(),  # HERE random
    "numpy's random": lambda loc: loc * np.random.rand(),  # HERE numpy's random
    "numpy's array": lambda loc: loc + torch.from_numpy(np.random.randn(2)),  # HERE numpy's array
    "a popped list": lambda loc: loc * (1 + 0.01 * POPPED.pop()),  # HERE a popped list
    "a new tensor": lambda loc: loc * torch.tensor(random.random()),  # HERE a new tensor
    "a list of values": lambda loc: loc * loc.tolist()[0][0],  # HERE a list of values
}
ASKING = {
    "a branch": lambda loc: loc if loc.sum() > 0 else 2 * loc,  # HERE a branch
    "an item": lambda loc: loc * loc.sum().item(),  # HERE an item
    "a float": lambda loc: loc * float(loc.detach().mean()),  # HERE a float
}
"""Parts of a guide, with the place that a message has to name."""


def shaped(part):
    class Shaped(Toy):
        def posterior(self, x):
            loc = part(self.encoder(x)[:, :LATENTS])
            return dist.Normal(loc, 0.5).to_event(1)

    return Shaped


@pytest.mark.parametrize("name", [*UNSTEADY, *ASKING])
def test_python_in_a_guide_is_found_out_and_its_line_named(name):
    part = (UNSTEADY | ASKING)[name]
    cause = (
        "other numbers than the program" if name in UNSTEADY else "asks for the value of a tensor"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = descent(shaped(part), compile="auto", steps=30)
    (told,) = caught
    assert told.category is RuntimeWarning
    assert not run.svi.is_compiled
    assert cause in str(told.message)
    assert line_of(name) in str(told.message)
    assert run.svi.reason in str(told.message)
    with pytest.raises(CompileError) as error:
        descent(shaped(part), steps=30)
    assert cause in str(error.value)
    assert line_of(name) in str(error.value)


@pytest.mark.filterwarnings("ignore:CompiledSVI.step runs uncompiled:RuntimeWarning")
def test_results_after_falling_back_are_those_as_written():
    part = ASKING["a branch"]
    runs = [descent(shaped(part), compile=each, steps=12) for each in (False, "auto")]
    require_same(*runs)


def test_a_python_attribute_that_changes_later_is_found_at_the_next_check():
    class Annealed(Toy):
        beta = 1.0

        def guide(self, x):
            super().guide(x, self.beta)

    def between(step, run):
        run.programs.beta = 1.0 if step < 50 else 0.5

    with pytest.raises(CompileError, match=r"other numbers.*descents.py:\d+"):
        descent(Annealed, steps=81, between=between)
