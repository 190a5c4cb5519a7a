"""The choice between libraries changes who multiplies and not what comes out."""

import itertools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from bayesvae import products

LARGE, SMALL = 160, 8
CLOSE = {"rtol": 1e-5, "atol": 1e-5 * LARGE**0.5}


@pytest.fixture(autouse=True)
def _onednn_wins(monkeypatch):
    """Lets oneDNN's operator win every trial, so that tests do not depend on the machine."""
    if not products._AVAILABLE:
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(products, "_pays", lambda *_: True)


def matrix(rows, columns, turned=False, dtype=torch.float32):
    return (
        torch.randn(columns, rows, dtype=dtype).t()
        if turned
        else torch.randn(rows, columns, dtype=dtype)
    )


def chosen(function, *tensors):
    """The function as a graph with the choice made, and whether oneDNN is in it."""
    module = make_fx(function)(*tensors)
    products.with_fastest_products(module.graph)
    module.graph.lint()
    module.recompile()
    targets = [node.target for node in module.graph.nodes]
    return module, torch.ops.bayesvae.linear.default in targets


LAYOUTS = list(itertools.product([False, True], repeat=2))


@pytest.mark.parametrize("turned", LAYOUTS)
def test_a_product_is_the_same_by_the_other_library(turned):
    a, b = matrix(LARGE, 3 * LARGE, turned[0]), matrix(3 * LARGE, 2 * LARGE, turned[1])
    module, other = chosen(torch.mm, a, b)
    assert other
    assert_close(module(a, b), a @ b, **CLOSE)


@pytest.mark.parametrize("turned", LAYOUTS)
def test_a_product_with_a_shift_is_the_same_by_the_other_library(turned):
    a, b = matrix(LARGE, LARGE, turned[0]), matrix(LARGE, 2 * LARGE, turned[1])
    shift = torch.randn(2 * LARGE, dtype=torch.float32)
    module, other = chosen(torch.addmm, shift, a, b)
    assert other
    assert_close(module(shift, a, b), shift + a @ b, **CLOSE)


def test_gradients_of_a_layer_are_the_same_by_the_other_library():
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


def shift_and_scale(shift, a, b):
    return torch.addmm(shift, a, b, beta=0.5, alpha=2.0)


LEFT_ALONE = {
    "float64": (torch.mm, [(LARGE, LARGE, False, torch.float64)] * 2),
    "bfloat16": (torch.mm, [(LARGE, LARGE, False, torch.bfloat16)] * 2),
    "a small product": (torch.mm, [(SMALL, LARGE), (LARGE, SMALL)]),
    "a shift of every entry": (torch.addmm, [(LARGE, LARGE)] * 3),
    "a shift and a product with weights": (shift_and_scale, [(LARGE, LARGE)] * 3),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_is_left_to_torch(name):
    function, shapes = LEFT_ALONE[name]
    tensors = [matrix(*shape) for shape in shapes]
    module, other = chosen(function, *tensors)
    assert not other
    assert torch.equal(module(*tensors), function(*tensors))


def test_weights_of_a_sum_are_not_lost_where_the_shift_is_a_vector():
    a, shift = matrix(LARGE, LARGE), torch.randn(LARGE, dtype=torch.float32)
    module, _ = chosen(shift_and_scale, shift, a, a)
    assert_close(module(shift, a, a), 0.5 * shift + 2 * a @ a, **CLOSE)


def test_a_process_without_onednn_leaves_every_product_to_torch(monkeypatch):
    monkeypatch.setattr(products, "_AVAILABLE", False)
    a = matrix(LARGE, LARGE)
    module, other = chosen(torch.mm, a, a)
    assert not other
    assert torch.equal(module(a, a), a @ a)


def test_where_onednn_loses_torch_keeps_the_product(monkeypatch):
    monkeypatch.setattr(products, "_pays", lambda *_: False)
    a = matrix(LARGE, LARGE)
    assert not chosen(torch.mm, a, a)[1]


@pytest.mark.parametrize(("quick", "pays"), [(0.5, True), (0.99, False), (2.0, False)])
def test_only_a_clearly_faster_library_is_chosen(monkeypatch, quick, pays):
    monkeypatch.undo()
    products._pays.cache_clear()
    seconds = iter([1.0, quick])
    monkeypatch.setattr(products, "_seconds", lambda product: product() is None or next(seconds))
    layout = ((LARGE, LARGE), False)
    assert products._pays(*layout, *layout) is pays
    assert products._pays(*layout, *layout) is pays  # tried once, then remembered
    products._pays.cache_clear()


def test_the_trial_draws_no_random_numbers(monkeypatch):
    monkeypatch.undo()
    products._pays.cache_clear()
    a = matrix(LARGE, LARGE)
    before = torch.get_rng_state()
    chosen(torch.mm, a, a)
    assert torch.equal(torch.get_rng_state(), before)
