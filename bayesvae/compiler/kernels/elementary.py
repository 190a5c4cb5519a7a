"""Logarithms and exponentials near zero, from functions that are fast on every processor.

For float32 on a CPU with AVX-512, log(1 + x), exp(x) - 1 and tanh come to torch from a library
whose versions of these were seen to take up to thirty times as long as log and exp, for minutes at
a time and in every process.  A Bernoulli likelihood, a softplus and an ELU consist of little else.
So compiled code writes them as

    log(1 + x) = log u - ((u - 1) - x) / u,   u = 1 + x rounded: what rounding took is given back
                 ("What Every Computer Scientist Should Know About Floating-Point Arithmetic",
                 Goldberg, 1991, for the idea);
    exp(x) - 1 = the Taylor polynomial of degree 8 for |x| < 1/2, where its remainder is below
                 1.1e-8 of the value; else as it stands, where nothing cancels;
    tanh x     = -sign(x) e / (e + 2),   e = exp(-2 |x|) - 1,

to within a few units of the last place, infinities and all.
"""

from collections.abc import Callable
from functools import cache
from math import factorial, inf
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node, map_arg

from bayesvae.compiler.kernels import gemm

_aten = torch.ops.aten
DEGREE, NEAR = 8, 0.5


def _log1p(call: Callable[..., Any], x: Any) -> Any:
    u = call(_aten.add.Tensor, x, 1.0)
    lost = call(_aten.sub.Tensor, call(_aten.sub.Tensor, u, 1.0), x)
    given_back = call(_aten.div.Tensor, lost, u)
    usual = call(
        _aten.logical_and.default, call(_aten.gt.Scalar, u, 0.0), call(_aten.lt.Scalar, u, inf)
    )
    given_back = call(_aten.where.ScalarOther, usual, given_back, 0.0)
    return call(_aten.sub.Tensor, call(_aten.log.default, u), given_back)


def _expm1(call: Callable[..., Any], x: Any) -> Any:
    series = call(_aten.mul.Tensor, x, 1 / factorial(DEGREE))
    for degree in reversed(range(1, DEGREE)):
        series = call(_aten.add.Tensor, series, 1 / factorial(degree))
        series = call(_aten.mul.Tensor, series, x)
    near = call(_aten.lt.Scalar, call(_aten.abs.default, x), NEAR)
    far = call(_aten.sub.Tensor, call(_aten.exp.default, x), 1.0)
    return call(_aten.where.self, near, series, far)


def _tanh(call: Callable[..., Any], x: Any) -> Any:
    e = _expm1(call, call(_aten.mul.Tensor, call(_aten.abs.default, x), -2.0))
    size = call(_aten.div.Tensor, call(_aten.neg.default, e), call(_aten.add.Tensor, e, 2.0))
    below = call(_aten.lt.Scalar, x, 0.0)
    return call(_aten.where.self, below, call(_aten.neg.default, size), size)


WRITTEN = {_aten.log1p.default: _log1p, _aten.expm1.default: _expm1, _aten.tanh.default: _tanh}


def with_fast_elementary(graph: Graph) -> None:
    """Writes log1p, expm1 and tanh of float32 on the CPU in faster terms.

    Args:
        graph: of aten operations, whose nodes know their values (``meta["val"]``).
    """
    for node in list(graph.nodes):
        write = WRITTEN.get(node.target)
        if write is None or not (_is_single(node) and _is_single(node.args[0])):
            continue  # of another kind, or an integer's logarithm
        with graph.inserting_before(node):
            instead = write(_caller(graph, node.meta["val"]), node.args[0])
        node.replace_all_uses_with(instead)
        graph.erase_node(node)


def _is_single(node: Node) -> bool:
    value = node.meta.get("val")
    return value is not None and value.device.type == "cpu" and value.dtype is torch.float32


@cache
def compiler_pass() -> Callable[[Graph], None]:
    """`with_fast_elementary` for torch's compiler, which takes a second to import: not before."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Pass(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            with_fast_elementary(graph)

        def uuid(self) -> Any:
            """Changes with what compiled code is made of: older code is not taken from a cache."""
            return get_hash_for_files((__file__, gemm.__file__))

    return Pass()


def _caller(graph: Graph, value: Tensor) -> Callable[..., Node]:
    """Adds calls to a graph that know their values, fake ones as ``value`` is."""

    def call(target: Callable[..., Tensor], *args: Any) -> Node:
        node = graph.call_function(target, args)
        with value.fake_mode:
            node.meta["val"] = target(*map_arg(args, lambda known: known.meta["val"]))
        return node

    return call
