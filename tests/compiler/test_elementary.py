"""log1p, expm1 and tanh written in other terms: as exact, and really written so."""

import math

import pytest
import torch
from torch.testing import assert_close

from bayesvae.compiler import lowering, tracing
from bayesvae.compiler.kernels import gemm
from bayesvae.compiler.kernels.elementary import WRITTEN, compiler_pass, with_fast_elementary

pytestmark = pytest.mark.skipif(
    lowering.missing_compiler() is not None, reason="needs a C++ compiler"
)
UNIT = torch.finfo(torch.float32).eps
NEAR = torch.logspace(-38, 0, 400, dtype=torch.float64)
GRIDS = {
    "log1p": torch.cat([NEAR, -0.999 * NEAR, torch.logspace(0, 38, 200, dtype=torch.float64)]),
    "expm1": torch.cat([NEAR, -NEAR, torch.linspace(-30, 80, 400, dtype=torch.float64)]),
    "tanh": torch.cat([NEAR, -NEAR, torch.linspace(-60, 60, 400, dtype=torch.float64)]),
}
ENDS = [0.0, -1.0, -2.0, math.inf, -math.inf, math.nan, 3e38]


def compiled(function, x):
    return lowering.compiled(tracing.record(lambda x: [function(x)], [x]))(x)[0]


@pytest.mark.parametrize("name", GRIDS)
def test_every_value_is_exact_to_a_few_units_of_the_last_place(name):
    function, x = getattr(torch, name), GRIDS[name].float()
    ours, exact = compiled(function, x).double(), function(x.double())
    assert ((ours - exact).abs() <= 4 * UNIT * exact.abs()).all()


@pytest.mark.parametrize("name", GRIDS)
def test_ends_and_what_has_no_value_are_as_ever(name):
    x = torch.tensor(ENDS, dtype=torch.float32)
    function = getattr(torch, name)
    assert_close(compiled(function, x), function(x), equal_nan=True)


LAYERS = {
    "Bernoulli": lambda x: (
        -torch.nn.functional.binary_cross_entropy_with_logits(
            x, x.gt(0.3).float(), reduction="none"
        )
    ),
    "softplus": torch.nn.functional.softplus,
    "ELU": torch.nn.functional.elu,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_consists_of_them_is_written_so_too(name, monkeypatch):
    written = []

    def watched(target):
        write = WRITTEN[target]
        return lambda call, x: written.append(target) or write(call, x)

    for target in list(WRITTEN):
        monkeypatch.setitem(WRITTEN, target, watched(target))
    x = torch.linspace(-12, 12, 97, dtype=torch.float32)
    with torch._inductor.config.patch(fx_graph_cache=False):
        ours = compiled(LAYERS[name], x)
    assert_close(ours, LAYERS[name](x), rtol=1e-6, atol=1e-7)
    assert written


def test_other_precisions_are_left_to_torch():
    x = torch.linspace(-0.5, 2, 31, dtype=torch.float64)
    assert_close(compiled(torch.log1p, x), torch.log1p(x), rtol=1e-15, atol=0)
    whole = torch.arange(5)
    assert_close(compiled(torch.log1p, whole), torch.log1p(whole))


def test_code_that_calls_an_older_kernel_is_not_taken_from_a_cache(tmp_path, monkeypatch):
    now, newer = compiler_pass().uuid(), tmp_path / "kernels.py"
    newer.write_text("other code")
    monkeypatch.setattr(gemm, "__file__", str(newer))
    assert compiler_pass().uuid() != now


def test_a_call_whose_value_is_not_known_is_left_as_it_is():
    graph = torch.fx.Graph()
    graph.output(graph.call_function(torch.ops.aten.tanh.default, (graph.placeholder("x"),)))
    with_fast_elementary(graph)
    assert torch.ops.aten.tanh.default in [node.target for node in graph.nodes]
