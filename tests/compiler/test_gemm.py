"""Our own matrix product: every size and layout, and nothing written beside the result."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from bayesvae.compiler import lowering, tracing
from bayesvae.compiler.kernels import gemm

pytestmark = pytest.mark.skipif(
    lowering.missing_compiler() is not None, reason="needs a C++ compiler"
)
EDGES = (1, 3, 8, 9, 16, 17, 33)
"""Around the tile: rows in eights, columns in halves, one or two vectors of up to sixteen."""
SIZES = [*itertools.product(EDGES, repeat=2)]
LAYOUTS = list(itertools.product([False, True], repeat=2))
FENCE = 7.0


def matrix(rows, columns, turned):
    drawn = torch.randn((columns, rows) if turned else (rows, columns), dtype=torch.float32)
    return drawn.t() if turned else drawn


def fenced(rows, columns):
    """A matrix amid other numbers, and all of them."""
    whole = torch.full((rows * columns + 64,), FENCE, dtype=torch.float32)
    return whole[32:-32].view(rows, columns), whole


@pytest.mark.parametrize("turned", LAYOUTS)
@pytest.mark.parametrize("inner", [1, 4, 6, 37])
def test_the_kernel_multiplies_matrices_of_any_size_and_stays_inside_the_result(turned, inner):
    for rows, columns in SIZES:
        a, b = matrix(rows, inner, turned[0]), matrix(inner, columns, turned[1])
        out, whole = fenced(rows, columns)
        gemm.product()(a, b, out)()
        exact = (a.double() @ b.double()).float()
        assert_close(out, exact, rtol=1e-5, atol=1e-5)
        assert (whole[:32] == FENCE).all()
        assert (whole[-32:] == FENCE).all()


def product(bias, a, b, *how):
    return torch.ops.bayesvae.product(a, b, bias, *how)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", LAYOUTS)
def test_compiled_code_calls_the_kernel_and_it_equals_the_operator(turned, bias, positive):
    assert gemm.product() is not None
    rows, inner, columns = 24, 5, 20
    a = matrix(*((inner, rows) if turned[0] else (rows, inner)), False)
    b = matrix(*((columns, inner) if turned[1] else (inner, columns)), False)
    shift = torch.randn(columns, dtype=torch.float32) if bias else None
    given = [t for t in (shift, a, b) if t is not None]

    def function(*tensors):
        return [product(*([None] * (not bias)), *tensors, *turned, positive)]

    run = lowering.compiled(tracing.record(function, given))
    left, right = a.t() if turned[0] else a, b.t() if turned[1] else b
    exact = left.double() @ right.double() + (0.0 if shift is None else shift.double())
    exact = exact.clamp_min(0) if positive else exact
    assert_close(run(*given)[0], exact.float(), rtol=1e-5, atol=1e-5)
    assert_close(function(*given)[0], exact.float(), rtol=1e-5, atol=1e-5)


def test_a_view_of_some_columns_is_multiplied_as_it_stands():
    assert gemm.product() is not None
    wide, b = matrix(12, 40, False), matrix(8, 10, False)

    def function(wide, b):
        return [torch.ops.bayesvae.product(wide[:, 4:12], b, None, False, False, False)]

    run = lowering.compiled(tracing.record(function, [wide, b]))
    assert_close(run(wide, b)[0], wide[:, 4:12] @ b, rtol=1e-5, atol=1e-5)


def test_what_is_no_number_stays_so_in_a_positive_part():
    assert gemm.product() is not None
    given = torch.full((9, 4), torch.nan), torch.ones(4, 20)
    given = [matrix.float() for matrix in given]

    def function(a, b):
        return [torch.ops.bayesvae.product(a, b, None, False, False, True)]

    assert lowering.compiled(tracing.record(function, given))(*given)[0].isnan().all()


def test_a_machine_that_cannot_build_the_kernel_is_told_by_none(monkeypatch):
    def fails():
        raise RuntimeError("no such instruction")

    gemm.product.cache_clear()
    monkeypatch.setattr(gemm, "_built", fails)
    assert gemm.product() is None
    gemm.product.cache_clear()
