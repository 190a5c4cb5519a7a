"""How a matrix is multiplied fastest, found out by trying.

torch multiplies matrices on a CPU with MKL.  On processors of other makers than its own MKL may
use half of their vector width, where oneDNN, which torch carries too, uses all of it; for small
matrices MKL's smaller overhead wins.  Of a narrow product MKL may compute the transpose three
times as fast: (A B)^T = B^T A^T.  So each product of a graph is tried in every way, once a process
and shape, and the fastest stays.  The numbers differ in the last bits only.
"""

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

_MM, _ADDMM = torch.ops.aten.mm.default, torch.ops.aten.addmm.default
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)
_WORTH = 2**21
"""Products with fewer multiplications than this are over before oneDNN has begun."""
_CLEARLY = 0.9
_ROUNDS = 7
_ROUND_SECONDS = 1e-4

_operators = torch.library.Library("bayesvae", "DEF")
_operators.define("linear(Tensor a, Tensor weight, Tensor? bias) -> Tensor")


def _linear(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """a weight^T + bias by oneDNN; the ``mkldnn`` operator itself asks for constant weights."""
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")


def _shape(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(len(a), len(weight))


_operators.impl("linear", _linear, "CPU")
_operators.impl("linear", _shape, "Meta")


class Layout(NamedTuple):
    """A matrix without its numbers.

    Attributes:
        shape: rows and columns.
        turned: whether columns, not rows, are contiguous.
        dtype: of its entries.
    """

    shape: tuple[int, int]
    turned: bool
    dtype: torch.dtype

    def filled(self) -> Tensor:
        """Such a matrix."""
        numbers = torch.ones(self.shape[:: -1 if self.turned else 1], dtype=self.dtype)
        return numbers.t() if self.turned else numbers


def with_fastest_products(graph: Graph) -> None:
    """Multiplies each pair of matrices of a graph in the fastest way, in the graph itself.

    Args:
        graph: of aten operations, whose nodes know their values' shapes (``meta["val"]``).
    """
    for node in list(graph.nodes):
        if node.target not in (_MM, _ADDMM) or node.kwargs:
            continue
        *bias, a, b = node.args
        if not all(map(_is_candidate, (*bias, a, b))) or (bias and bias[0].meta["val"].dim() > 1):
            continue
        write = _WRITTEN[_fastest(_layout(a), _layout(b))]
        if write is None:
            continue
        with graph.inserting_before(node):
            instead = write(graph, a, b, *bias)
        instead.meta = dict(node.meta)
        node.replace_all_uses_with(instead)
        graph.erase_node(node)


def _is_candidate(node: Node) -> bool:
    value = node.meta.get("val")
    return value is not None and value.device.type == "cpu" and value.is_floating_point()


def _layout(node: Node) -> Layout:
    value = node.meta["val"]
    return Layout(tuple(value.shape), value.stride(0) < value.stride(1), value.dtype)


# Ways to multiply, for tensors and for a graph ---------------------------------------------------


def _turned(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(b.t(), a.t()).t()


def _by_onednn(a: Tensor, b: Tensor) -> Tensor:
    return _linear(a, b.t(), None)


def _write_turned(graph: Graph, a: Node, b: Node, bias: Node | None = None) -> Node:
    ops, call = torch.ops.aten, graph.call_function
    product = call(_MM, (call(ops.t.default, (b,)), call(ops.t.default, (a,))))
    result = call(ops.t.default, (product,))
    if bias is not None:
        result = call(ops.add.Tensor, (result, bias))
    # As contiguous as it was; the compiler copies only where somebody looks.
    return call(ops.clone.default, (result,), {"memory_format": torch.contiguous_format})


def _write_by_onednn(graph: Graph, a: Node, b: Node, bias: Node | None = None) -> Node:
    weight = graph.call_function(torch.ops.aten.t.default, (b,))
    return graph.call_function(torch.ops.bayesvae.linear.default, (a, weight, bias))


_WRITTEN = {torch.mm: None, _turned: _write_turned, _by_onednn: _write_by_onednn}


@cache
def _fastest(a: Layout, b: Layout) -> Callable[[Tensor, Tensor], Tensor]:
    """The usual way to multiply two matrices, or one that is clearly faster."""
    ways = [torch.mm, _turned]
    if _AVAILABLE and a.dtype is torch.float32 and a.shape[0] * b.shape[0] * b.shape[1] >= _WORTH:
        ways.append(_by_onednn)
    with torch.no_grad():
        usual, *others = _seconds(ways, a.filled(), b.filled())
    best = min(others)
    return ways[1 + others.index(best)] if best < _CLEARLY * usual else torch.mm


def _seconds(ways: list[Callable[[Tensor, Tensor], Tensor]], a: Tensor, b: Tensor) -> list[float]:
    """What each way to multiply takes, the median of rounds in turn."""
    for way in ways:
        way(a, b)
    start = time.perf_counter()
    ways[0](a, b)
    count = 1 + int(_ROUND_SECONDS / (time.perf_counter() - start))
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(_ROUNDS):
        for way, times in zip(ways, taken, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                way(a, b)
            times.append(time.perf_counter() - start)
    return list(map(statistics.median, taken))
