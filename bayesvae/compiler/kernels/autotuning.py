"""How a matrix is multiplied fastest, found out by trying.

torch multiplies matrices on a CPU with MKL, which loses time on small and narrow ones, and on
processors of other makers than its own may use half of their vector width.  oneDNN, which torch
carries too, uses all of it, but takes long to begin; `bayesvae.compiler.kernels.gemm` begins at
once, and works on one core.  So each product of a graph is tried in every way, once a process and
shape, and the fastest stays.  The numbers differ in the last bits only.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from bayesvae.compiler.kernels import gemm

_MM, _ADDMM = torch.ops.aten.mm.default, torch.ops.aten.addmm.default
_PRODUCT, _RELU = torch.ops.bayesvae.product.default, torch.ops.aten.relu.default
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)
_WORTH = 2**21
"""Products with fewer multiplications than this are over before oneDNN has begun."""
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
    """A matrix on the CPU without its numbers.

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
        shape = self.shape[:: -1 if self.turned else 1]
        numbers = torch.ones(shape, dtype=self.dtype, device="cpu")
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
        if not all(map(_is_candidate, (*bias, a, b))):
            continue
        if bias and bias[0].meta["val"].shape != b.meta["val"].shape[1:]:
            continue  # one number for all columns, or one for each entry
        write = _WRITTEN[_fastest(_layout(a), _layout(b), torch.get_num_threads())]
        if write is None:
            continue
        with graph.inserting_before(node):
            instead = write(graph, a, b, *bias)
        instead.meta = dict(node.meta)
        node.replace_all_uses_with(instead)
        graph.erase_node(node)
        if instead.target is _PRODUCT:
            _take_in_positive_part(graph, instead)


def _take_in_positive_part(graph: Graph, product: Node) -> None:
    """Lets the product itself hand on the positive part of it, where nothing else is asked for."""
    users = list(product.users)
    if [user.target for user in users] == [_RELU]:
        (user,) = users
        product.args = (*product.args[:-1], True)
        user.replace_all_uses_with(product)
        graph.erase_node(user)


def _is_candidate(node: Node) -> bool:
    value = node.meta.get("val")
    return value is not None and value.device.type == "cpu" and value.is_floating_point()


def _layout(node: Node) -> Layout:
    value = node.meta["val"]
    return Layout(tuple(value.shape), value.stride(0) < value.stride(1), value.dtype)


# Ways to multiply, for tensors and for a graph ---------------------------------------------------


Way = Callable[[Tensor, Tensor, Tensor], Callable[[], Any]]
"""Prepares to put the product of two matrices into a third one, or to make it anew."""


def _usual(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], Any]:
    return partial(torch.mm, a, b, out=out)


def _own(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], Any]:
    return gemm.product()(a, b, out)


def _by_onednn(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], Any]:
    return partial(_linear, a, b.t(), None)


def _write_own(graph: Graph, a: Node, b: Node, bias: Node | None = None) -> Node:
    turned = [_layout(node).turned for node in (a, b)]
    a, b = (
        graph.call_function(torch.ops.aten.t.default, (node,)) if is_turned else node
        for node, is_turned in zip((a, b), turned, strict=True)
    )
    return graph.call_function(_PRODUCT, (a, b, bias, *turned, False))


def _write_by_onednn(graph: Graph, a: Node, b: Node, bias: Node | None = None) -> Node:
    weight = graph.call_function(torch.ops.aten.t.default, (b,))
    return graph.call_function(torch.ops.bayesvae.linear.default, (a, weight, bias))


_WRITTEN = {_usual: None, _own: _write_own, _by_onednn: _write_by_onednn}
_COUNTED = {_usual: 1.0, _own: 0.9, _by_onednn: 1.05}
"""How each way's time is counted: torch's need a view of each turned matrix, which takes time too,
and a way that is as good as another one should win in every process, for the cache's sake."""


@cache
def _fastest(a: Layout, b: Layout, threads: int) -> Way:
    """The usual way to multiply two matrices on so many threads, or one that is clearly faster."""
    ways = [_usual, *_others(a.shape[0] * b.shape[0] * b.shape[1], a.dtype)]
    out = torch.empty(a.shape[0], b.shape[1], dtype=a.dtype, device="cpu")
    with torch.no_grad():
        taken = dict(zip(ways, _seconds(ways, a.filled(), b.filled(), out), strict=True))
    return min(ways, key=lambda way: _COUNTED[way] * taken[way])


def _others(multiplications: int, dtype: torch.dtype) -> Iterator[Way]:
    """The ways to multiply besides the usual one."""
    if dtype is torch.float32:
        if gemm.product() is not None:
            yield _own
        if _AVAILABLE and multiplications >= _WORTH:
            yield _by_onednn


def _seconds(ways: Sequence[Way], a: Tensor, b: Tensor, out: Tensor) -> list[float]:
    """What each way to multiply takes, the median of rounds in turn."""
    runs = [way(a, b, out) for way in ways]
    for run in runs:
        run()
    start = time.perf_counter()
    runs[0]()
    count = 1 + int(_ROUND_SECONDS / (time.perf_counter() - start))
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, times in zip(runs, taken, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            times.append(time.perf_counter() - start)
    return list(map(statistics.median, taken))
