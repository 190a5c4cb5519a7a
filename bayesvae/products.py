"""Which library multiplies matrices fastest, found out by trying.

torch multiplies float32 matrices on a CPU with MKL, which on processors of other makers than its
own may use half of their vector width; oneDNN, which torch carries too, does not.  For small
matrices MKL's smaller overhead wins.  So each product of a graph is tried with both, once a
process and shape, and the faster one stays.  The numbers differ in the last bits only.
"""

import statistics
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.fx import Graph, Node

_MM, _ADDMM = torch.ops.aten.mm.default, torch.ops.aten.addmm.default
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)
_WORTH = 2**21
"""Products with fewer multiplications than this are over before a choice could pay."""
_CLEARLY = 0.9

_operators = torch.library.Library("bayesvae", "DEF")
_operators.define("linear(Tensor a, Tensor weight, Tensor? bias) -> Tensor")


def _linear(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """a weight^T + bias by oneDNN; the ``mkldnn`` operator itself asks for constant weights."""
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")


def _shape(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(len(a), len(weight))


_operators.impl("linear", _linear, "CPU")
_operators.impl("linear", _shape, "Meta")


def with_fastest_products(graph: Graph) -> None:
    """Puts the faster library's operator in place of each matrix product, in the graph itself.

    Args:
        graph: of aten operations, whose nodes know their values' shapes (``meta["val"]``).
    """
    if not _AVAILABLE:
        return
    for node in list(graph.nodes):
        if node.target not in (_MM, _ADDMM) or node.kwargs:
            continue
        *bias, a, b = node.args
        if not _is_candidate(bias, a, b) or not _pays(*_layout(a), *_layout(b)):
            continue
        with graph.inserting_before(node):
            weight = graph.call_function(torch.ops.aten.t.default, (b,))
            operator = torch.ops.bayesvae.linear.default
            instead = graph.call_function(operator, (a, weight, *(bias or [None])))
        instead.meta = dict(node.meta)
        node.replace_all_uses_with(instead)
        graph.erase_node(node)


def _is_candidate(bias: list[Node], a: Node, b: Node) -> bool:
    values = [n.meta.get("val") for n in (*bias, a, b)]
    usable = all(
        v is not None and v.device.type == "cpu" and v.dtype is torch.float32 for v in values
    )
    vector = not bias or (usable and values[0].dim() == 1)
    return usable and vector and a.meta["val"].numel() * b.meta["val"].shape[1] >= _WORTH


def _layout(node: Node) -> tuple[tuple[int, int], bool]:
    value = node.meta["val"]
    return tuple(value.shape), value.stride(0) < value.stride(1)


@cache
def _pays(
    first: tuple[int, int], first_turned: bool, second: tuple[int, int], second_turned: bool
) -> bool:
    """Whether oneDNN is clearly the faster one at a product of two layouts."""

    def matrix(shape: tuple[int, int], turned: bool) -> Tensor:
        numbers = torch.ones(shape[::-1] if turned else shape, dtype=torch.float32)
        return numbers.t() if turned else numbers

    with torch.no_grad():
        a, b = matrix(first, first_turned), matrix(second, second_turned)
        usual = _seconds(lambda: torch.mm(a, b))
        return _seconds(lambda: _linear(a, b.t(), None)) < _CLEARLY * usual


def _seconds(product: Callable[[], Tensor]) -> float:
    product()
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
