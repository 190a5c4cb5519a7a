"""The choice of a way to multiply changes who multiplies and not what comes out."""

import itertools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from bayesvae.compiler.kernels import autotuning, gemm

LARGE, SMALL = 160, 8
CLOSE = {"rtol": 1e-5, "atol": 1e-5 * LARGE**0.5}


WAYS = [autotuning._own, autotuning._by_onednn]
"""Ways other than torch's usual one."""
USUAL, TRIED = autotuning._usual, ["_usual", "_own", "_by_onednn"]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request, monkeypatch):
    """A way to multiply that wins every trial, so that tests do not depend on the machine."""
    if request.param is autotuning._by_onednn and not autotuning._AVAILABLE:
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(autotuning, "_fastest", lambda *_: request.param)
    return request.param


def matrix(rows, columns, turned=False, dtype=torch.float32):
    shape = (columns, rows) if turned else (rows, columns)
    drawn = torch.randn(shape, dtype=torch.float32).to(dtype)
    return drawn.t() if turned else drawn


def chosen(function, *tensors):
    """The function as a graph with the choice made, and whether any product was changed."""
    module = make_fx(function)(*tensors)
    before = str(module.graph)
    autotuning.with_fastest_products(module.graph)
    module.graph.lint()
    module.recompile()
    return module, str(module.graph) != before


LAYOUTS = list(itertools.product([False, True], repeat=2))


def require_same(module, function, *tensors):
    """The same numbers, laid out in memory alike."""
    ours, exact = module(*tensors), function(*tensors)
    assert_close(ours, exact, **CLOSE)
    assert ours.stride() == exact.stride()


@pytest.mark.parametrize("turned", LAYOUTS)
def test_a_product_is_the_same_by_another_way(way, turned):
    given = matrix(LARGE, 3 * LARGE, turned[0]), matrix(3 * LARGE, 2 * LARGE, turned[1])
    module, other = chosen(torch.mm, *given)
    assert other
    require_same(module, torch.mm, *given)


@pytest.mark.parametrize("turned", LAYOUTS)
def test_a_product_with_a_shift_is_the_same_by_another_way(way, turned):
    a, b = matrix(LARGE, LARGE, turned[0]), matrix(LARGE, 2 * LARGE, turned[1])
    given = torch.randn(2 * LARGE, dtype=torch.float32), a, b
    module, other = chosen(torch.addmm, *given)
    assert other
    require_same(module, torch.addmm, *given)


def test_gradients_of_a_layer_are_the_same_by_another_way(way):
    layer = torch.nn.Linear(2 * LARGE, LARGE, dtype=torch.float32)

    def gradients(x, weight, shift):
        with torch.enable_grad():
            loss = torch.nn.functional.linear(x, weight, shift).square().sum()
            return torch.autograd.grad(loss, [x, weight, shift])

    given = matrix(LARGE, 2 * LARGE).requires_grad_(), layer.weight, layer.bias
    module, other = chosen(gradients, *given)
    assert other
    for ours, exact in zip(module(*given), gradients(*given), strict=True):
        assert_close(ours, exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item())


def layer(x, weight, shift):
    return torch.relu(torch.nn.functional.linear(x, weight, shift))


def twice_used(x, weight, shift):
    sums = torch.nn.functional.linear(x, weight, shift)
    return torch.relu(sums) + sums


@pytest.mark.parametrize(("function", "left"), [(layer, 0), (twice_used, 1)])
def test_a_positive_part_is_taken_in_where_nothing_else_is_asked_for(monkeypatch, function, left):
    monkeypatch.setattr(autotuning, "_fastest", lambda *_: autotuning._own)
    shift = torch.randn(LARGE, dtype=torch.float32)
    given = matrix(SMALL, LARGE), matrix(LARGE, LARGE), shift
    module, _ = chosen(function, *given)
    targets = [node.target for node in module.graph.nodes]
    assert targets.count(torch.ops.aten.relu.default) == left
    assert_close(module(*given), function(*given), **CLOSE)


def test_a_product_that_nobody_asks_for_does_no_harm(way):
    def function(a):
        return (torch.mm(a, a), a + 1)[1]

    a = matrix(LARGE, LARGE)
    module, _ = chosen(function, a)
    assert torch.equal(module(a), a + 1)


def shift_and_scale(shift, a, b):
    return torch.addmm(shift, a, b, beta=0.5, alpha=2.0)


LEFT_ALONE = {
    "whole numbers": (torch.mm, [(LARGE, LARGE, False, torch.int64)] * 2),
    "a shift of every entry": (torch.addmm, [(LARGE, LARGE)] * 3),
    "a shift of one number": (
        lambda shift, a, b: torch.addmm(shift[0, :1], a, b),
        [(LARGE, LARGE)] * 3,
    ),
    "a shift and a product with weights": (shift_and_scale, [(LARGE, LARGE)] * 3),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_is_left_to_torch(way, name):
    function, shapes = LEFT_ALONE[name]
    tensors = [matrix(*shape) for shape in shapes]
    module, other = chosen(function, *tensors)
    assert not other
    assert torch.equal(module(*tensors), function(*tensors))


def test_weights_of_a_sum_are_not_lost_where_the_shift_is_a_vector(way):
    a, shift = matrix(LARGE, LARGE), torch.randn(LARGE, dtype=torch.float32)
    module, _ = chosen(shift_and_scale, shift, a, a)
    assert_close(module(shift, a, a), 0.5 * shift + 2 * a @ a, **CLOSE)


# The trial --------------------------------------------------------------------------------------


@pytest.fixture
def tried(monkeypatch):
    """The ways that a trial compares, with seconds that the test decides; nothing remembered."""
    ways, seconds = [], [1.0, 2.0, 3.0]
    autotuning._fastest.cache_clear()

    def took(each, *_):
        ways.append([way.__name__ for way in each])
        return seconds[: len(each)]

    monkeypatch.setattr(autotuning, "_seconds", took)
    yield ways, seconds
    autotuning._fastest.cache_clear()


def fastest(size, dtype=torch.float32):
    """What a trial of products (size, LARGE) (LARGE, size) decides."""
    a, b = (
        autotuning.Layout((size, LARGE), False, dtype),
        autotuning.Layout((LARGE, size), False, dtype),
    )
    return autotuning._fastest(a, b, 1)


@pytest.mark.parametrize(
    ("size", "dtype", "ways"),
    [
        (LARGE, torch.float32, TRIED),
        (SMALL, torch.float32, TRIED[:2]),
        (LARGE, torch.float64, TRIED[:1]),
        (LARGE, torch.bfloat16, TRIED[:1]),
    ],
)
def test_other_ways_are_tried_at_products_of_float32(tried, monkeypatch, size, dtype, ways):
    monkeypatch.setattr(autotuning, "_AVAILABLE", True)
    fastest(size, dtype)
    assert tried[0] == [ways]


def test_a_process_without_onednn_does_not_try_it(tried, monkeypatch):
    monkeypatch.setattr(autotuning, "_AVAILABLE", False)
    fastest(LARGE)
    assert tried[0] == [["_usual", "_own"]]


def test_a_process_that_cannot_build_the_kernel_does_without(tried, monkeypatch):
    monkeypatch.setattr(gemm, "product", lambda: None)
    monkeypatch.setattr(autotuning, "_AVAILABLE", False)
    assert fastest(LARGE) is USUAL
    assert tried[0] == [["_usual"]]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ([1.0, 0.5, 0.7], autotuning._own),
        ([1.0, 1.05, 1.0], autotuning._own),
        ([1.0, 0.7, 0.5], autotuning._by_onednn),
        ([1.0, 1.2, 0.97], USUAL),
        ([1.0, 2.0, 3.0], USUAL),
    ],
)
def test_the_fastest_way_is_chosen_the_own_one_where_they_tie(tried, monkeypatch, seconds, best):
    monkeypatch.setattr(autotuning, "_AVAILABLE", True)
    tried[1][:] = seconds
    for _ in range(2):
        assert fastest(LARGE) is best
    assert len(tried[0]) == 1


def test_the_usual_way_leaves_the_graph_as_it_is(monkeypatch):
    monkeypatch.setattr(autotuning, "_fastest", lambda *_: USUAL)
    assert not chosen(torch.mm, matrix(LARGE, LARGE), matrix(LARGE, LARGE))[1]


def test_a_trial_is_on_the_processor_whatever_device_is_the_usual_one(tried):
    with torch.device("meta"):
        assert autotuning.Layout((2, 3), True, torch.float32).filled().is_cpu
        assert fastest(LARGE) in (USUAL, *WAYS)


def test_a_real_trial_draws_no_random_numbers_and_finds_a_way():
    autotuning._fastest.cache_clear()
    a = matrix(LARGE, SMALL)
    before = torch.get_rng_state()
    module, _ = chosen(torch.mm, a.t(), a)
    assert torch.equal(torch.get_rng_state(), before)
    assert_close(module(a.t(), a), a.t() @ a, **CLOSE)
    assert autotuning._fastest.cache_info().currsize == 1
