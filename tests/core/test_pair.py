"""A pair finds its parameters wherever they are, and shares them with no other pair."""

import functools
import io
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, CATALOG, FEATURES, LATENTS, linear
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import nn
from torch.distributions import constraints, transform_to
from torch.testing import assert_close

from bayesvae.core.pair import Pair


def copies(parameters):
    return [parameter.detach().clone() for parameter in parameters]


def unchanged(parameters, before):
    return all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def moved(parameters, before):
    return [not torch.equal(p, b) for p, b in zip(parameters, before, strict=True)]


# Under plain Pyro ---------------------------------------------------------------------------


def two_instances(build):
    instances = []
    for _ in range(2):
        case = build()
        case.pair.find_parameters(case.x, case.index)
        instances.append(case)
        if case.statements:
            # Plain pyro.param tensors are one parameter a name, unless the store is emptied.
            pyro.clear_param_store()
    return instances


def test_running_a_pair_copies_no_values_to_or_from_a_second_instance(build):
    instances = two_instances(build)
    parameters = [p for case in instances for p in case.pair.parameters()]
    before = copies(parameters)
    for case in (*instances, *instances):
        SVI(case.pair.model, case.pair.guide, Adam({}), Trace_ELBO()).evaluate_loss(
            case.x, case.index
        )
        assert unchanged(parameters, before)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_svi_moves_every_parameter_of_a_pair_and_none_of_a_second_instance(build, loss):
    instances = two_instances(build)
    for case, other in (instances, reversed(instances)):
        own, others = [*case.pair.named_parameters()], [*other.pair.parameters()]
        before, untouched = copies(p for _, p in own), copies(others)
        svi = SVI(case.pair.model, case.pair.guide, Adam({"lr": 0.01}), loss())
        disordered = loss is TraceMeanField_ELBO and not case.same_order
        warning = pytest.warns(UserWarning, match="mean field") if disordered else nullcontext()
        with warning:
            for _ in range(3):
                svi.step(case.x, case.index)
        idle = [n for (n, p), b in zip(own, before, strict=True) if torch.equal(p, b)]
        assert not idle
        assert unchanged(others, untouched)


def hidden_programs():
    """A pair whose parameters only statements show, and these parameters."""
    decoder, encoder = nn.Linear(LATENTS, FEATURES), nn.Linear(FEATURES, LATENTS)
    modules = {"decoder": decoder, "encoder": encoder}

    def model(x):
        pyro.module("decoder", modules["decoder"])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(modules["decoder"](z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", modules["encoder"])
        width = pyro.param("width", torch.ones(LATENTS), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(modules["encoder"](x), width).to_event(1))

    return model, guide, [*decoder.parameters(), *encoder.parameters()]


def test_svi_trains_parameters_that_only_statements_show_without_any_preparation():
    model, guide, parameters = hidden_programs()
    x, pair = torch.randn(BATCH, FEATURES), Pair(model, guide)
    before = copies(parameters)
    svi = SVI(pair.model, pair.guide, Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x)
    first = pyro.param("width").detach().clone()
    svi.step(x)
    assert all(moved(parameters, before))
    assert not torch.equal(first, pyro.param("width"))


def test_a_frozen_parameter_stays_under_svi():
    case = CATALOG["prior StandardNormal"]()
    frozen, *others = case.pair.parameters()
    frozen.requires_grad_(False)
    before, start = copies([frozen]), copies(others)
    SVI(case.pair.model, case.pair.guide, Adam({"lr": 0.1}), Trace_ELBO()).step(case.x)
    assert unchanged([frozen], before)
    assert all(moved(others, start))


def test_pyro_optimisers_can_tell_the_parameters_apart_by_name():
    pair, x, *_ = linear()
    rates = {}

    def rate_of(name):
        rates[name] = 0.01
        return {"lr": rates[name]}

    SVI(pair.model, pair.guide, Adam(rate_of), Trace_ELBO()).step(x)
    assert len(rates) == len([*pair.parameters()])


def test_pyro_optimisers_save_one_state_a_parameter():
    pair, x, *_ = linear()
    svi = SVI(pair.model, pair.guide, Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x)
    assert len(svi.optim.get_state()) == len([*pair.parameters()])


# Finding parameters -------------------------------------------------------------------------


def silent(x):
    """A program without sites."""


class Programs(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(LATENTS, FEATURES)

    def forward(self, x):
        return self.network(x)

    def model(self, x):
        return self.network(x)


class PlainObject:
    """Holds modules and is none itself."""

    def __init__(self, programs):
        self.programs = programs

    def model(self, x):
        return self.programs(x)


def with_keyword(x, programs):
    return programs(x)


def closure(programs):
    def model(x):
        return programs(x)

    return model


def decorated(programs):
    @functools.wraps(programs.model)
    def wrapper(x):
        return inner(x)

    inner = closure(programs)
    return wrapper


def recursive(programs):
    def repeated(x, times):
        return programs(x) if times == 0 else repeated(x, times - 1)

    def model(x):
        return repeated(x, 2)

    return model


def registered(programs):
    hidden = {"programs": programs}

    def model(x):
        return pyro.module("programs", hidden["programs"])(x)

    return model


WAYS = {
    "a module": lambda programs: programs,
    "a bound method": lambda programs: programs.model,
    "a bound method of a plain object": lambda programs: PlainObject(programs).model,
    "a partial of a method": lambda programs: functools.partial(programs.model),
    "a partial's argument": lambda programs: functools.partial(with_keyword, programs=programs),
    "a closure": closure,
    "a closure in a closure": decorated,
    "a closure that calls itself": recursive,
    "a handler": lambda programs: poutine.mask(programs.model, mask=True),
    "pyro.module": registered,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["model", "guide"])
def test_parameters_are_found_behind(way, role):
    programs, x = Programs(), torch.zeros(BATCH, LATENTS)
    others = {"model": silent, "guide": silent, role: WAYS[way](programs)}
    pair = Pair(**others)
    pair.find_parameters(x)
    assert {id(p) for p in pair.parameters()} == {id(p) for p in programs.parameters()}
    assert torch.equal(getattr(pair, role)(x), programs(x))


def test_a_module_on_both_sides_has_its_parameters_once():
    programs = Programs()
    pair = Pair(programs.model, programs)
    pair.find_parameters(torch.zeros(BATCH, LATENTS))
    assert len([*pair.parameters()]) == 2
    assert len([*pair.children()]) == 2  # the module, and the (empty) statements


def test_a_closure_over_a_name_that_is_bound_later_is_a_program():
    def model(x):
        return network(x)

    pair = Pair(model, silent)
    network = nn.Linear(LATENTS, FEATURES)
    assert pair.model(torch.zeros(BATCH, LATENTS)).shape == (BATCH, FEATURES)


def test_statements_of_different_names_are_different_parameters():
    def model(x):
        return pyro.param("a.b", torch.tensor(1.0)) + pyro.param("a_b", torch.tensor(2.0))

    pair = Pair(model, silent)
    pair.find_parameters(torch.zeros(1))
    assert sorted(p.item() for p in pair.parameters()) == [1.0, 2.0]
    assert pair.model(torch.zeros(1)) == 3.0


def test_modules_registered_under_one_name_are_both_found():
    first, second = Programs(), Programs()
    pair = Pair(registered(first), registered(second))
    pair.find_parameters(torch.zeros(BATCH, LATENTS))
    expected = {id(p) for programs in (first, second) for p in programs.parameters()}
    assert {id(p) for p in pair.parameters()} == expected


def test_finding_parameters_changes_neither_random_stream_nor_values_and_finds_all_at_once(case):
    before, stream = case.pair.state_dict(), torch.get_rng_state()
    kept = {name: value.clone() for name, value in before.items()}
    case.pair.find_parameters(case.x, case.index)
    found = {name: id(p) for name, p in case.pair.named_parameters()}
    assert torch.equal(stream, torch.get_rng_state())
    assert bool(len(found) > len(dict(before))) == case.statements
    case.pair.find_parameters(case.x, case.index)
    assert found == {name: id(p) for name, p in case.pair.named_parameters()}
    state = case.pair.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_finding_parameters_leaves_running_statistics_and_modes_alone():
    network = nn.Sequential(nn.BatchNorm1d(LATENTS), nn.Dropout().eval(), nn.BatchNorm1d(LATENTS))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Pair(closure(network), silent).find_parameters(torch.randn(BATCH, LATENTS))
    assert all(torch.equal(network.state_dict()[n], value) for n, value in before.items())
    assert [module.training for module in network] == [True, False, True]


def test_something_that_cannot_be_called_is_refused_with_its_type():
    with pytest.raises(TypeError, match="callable guide; got Tensor"):
        Pair(silent, torch.zeros(1))


# Statements ---------------------------------------------------------------------------------


def test_the_store_shows_what_any_optimiser_does_to_a_constrained_statement():
    case = CATALOG["by hand, pyro.param alone"]()
    case.pair.find_parameters(case.x)
    before = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    with torch.no_grad():
        for parameter in case.pair.parameters():
            parameter.add_(0.5)
    for name, value in pyro.get_param_store().items():
        positive = name in ("noise", "width")
        shift = transform_to(constraints.positive if positive else constraints.real)
        assert_close(value, shift(shift.inv(before[name]) + 0.5), rtol=1e-10, atol=0)


def test_a_constrained_statement_keeps_its_constraint_whatever_training_does():
    case = CATALOG["by hand, pyro.param alone"]()
    case.pair.find_parameters(case.x)
    with torch.no_grad():
        for parameter in case.pair.parameters():
            parameter.fill_(-3.0)
    sites = poutine.trace(case.pair.model).get_trace(case.x).nodes
    assert_close(sites["x"]["fn"].base_dist.scale, torch.full((BATCH, FEATURES), -3.0).exp())


def test_a_statement_that_starts_at_a_parameter_keeps_its_constraint():
    start = nn.Parameter(torch.tensor(0.3))

    def model(x):
        return pyro.param("scale", start, constraint=constraints.positive)

    pair = Pair(model, silent)
    pair.find_parameters(torch.zeros(1))
    assert_close(pair.model(torch.zeros(1)), torch.tensor(0.3))
    with torch.no_grad():
        next(pair.parameters()).fill_(-3.0)
    assert pair.model(torch.zeros(1)) > 0


def test_a_statement_that_makes_a_parameter_at_every_run_is_one_parameter():
    def model(x):
        return pyro.param("weight", nn.Parameter(torch.tensor(0.3)))

    pair = Pair(model, silent)
    pair.find_parameters(torch.zeros(1))
    with torch.no_grad():
        next(pair.parameters()).fill_(2.0)
    assert pair.model(torch.zeros(1)) == 2.0


def test_pairs_with_statements_of_one_name_have_one_parameter_as_in_pyro():
    first, second = (CATALOG["by hand, pyro.param alone"]() for _ in range(2))
    for case in (first, second):
        case.pair.find_parameters(case.x)
    SVI(first.pair.model, first.pair.guide, Adam({"lr": 0.1}), Trace_ELBO()).step(first.x)
    assert unchanged(first.pair.parameters(), copies(second.pair.parameters()))


def test_a_saved_state_restores_every_parameter_of_a_pair(case):
    case.pair.find_parameters(case.x, case.index)
    file = io.BytesIO()
    torch.save(case.pair.state_dict(), file)
    file.seek(0)
    before = copies(case.pair.parameters())
    with torch.no_grad():
        for parameter in case.pair.parameters():
            parameter.add_(1.0)
    case.pair.load_state_dict(torch.load(file, weights_only=True))
    assert unchanged(case.pair.parameters(), before)


# Signatures ---------------------------------------------------------------------------------


def test_the_index_goes_to_those_who_take_it_and_to_no_other():
    received = {}

    def plain(x):
        received["plain"] = None

    def required(x, index):
        received["required"] = index

    def optional(x, index=None):
        received["optional"] = index

    def anything(x, **named):
        received["anything"] = named["index"]

    def another(x, temperature=1.0):
        received["another"] = temperature

    class Module(nn.Module):
        def forward(self, x, index=None):
            received["module"] = index

    x, index = torch.zeros(2, 1), torch.tensor([4, 1])
    for program in (plain, required, optional, anything, another, Module()):
        Pair(program, silent).model(x, index)
        Pair(silent, program).guide(x, index)
    assert received.pop("plain") is None
    assert received.pop("another") == 1.0
    assert len(received) == 4
    assert all(value is index for value in received.values())
