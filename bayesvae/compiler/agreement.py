"""Whether a record gives the numbers of the program up to rounding; if not, where they part."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from bayesvae.compiler.program_lines import named, parsed
from bayesvae.compiler.tracing import Recorded


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> str:
    """How two lists of outputs differ beyond rounding, in words; empty if they do not."""
    if len(first) != len(second):
        return f"{len(first)} outputs against {len(second)}"
    numbers = [t[t.isfinite()] for t in second if t.is_floating_point() and t.isfinite().any()]
    largest = max((t.abs().max().item() for t in numbers), default=0.0)
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.shape != b.shape:
            return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
        tolerance = max(_rounding(a), _rounding(b)) ** 0.75
        finite = b[b.isfinite()].abs()
        scale = (finite.max().item() if finite.numel() else 0.0) + 1e-3 * largest
        if not torch.allclose(a.to(b), b, rtol=0.0, atol=tolerance * scale, equal_nan=True):
            apart = (a - b).abs().max().item()
            return f"output {number} by {apart:.3g} of {scale:.3g}"
    return ""


def _rounding(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0


def alike(first: Sequence | None, second: Sequence | None) -> bool:
    """Whether two lists of (parameter, whether its gradient is sparse) are the same."""
    ours, theirs = ([(id(p), sparse) for p, sparse in each or ()] for each in (first, second))
    return ours == theirs


def first_difference(first: Recorded, second: Recorded) -> str:
    """Where two records of one function part: a number, a shape or an operation; empty if not."""
    pairs = zip(first.graph.graph.nodes, second.graph.graph.nodes, strict=False)
    for one, other in pairs:
        if one.target != other.target and one.op == "call_function":
            deeper = max(one, other, key=lambda node: len(node.meta.get("stack_trace") or ""))
            return _told(deeper, f"{one.target} against {other.target}")
        mine, theirs = (
            [a for a in (*n.args, *n.kwargs.values()) if not _holds_node(a)] for n in (one, other)
        )
        if mine != theirs:
            return _told(one, f"{mine} against {theirs}")
        if one.op == "get_attr" and not _same_constant(first, second, one, other):
            return _told(one, "a tensor made anew")
    return ""


def _holds_node(argument: Any) -> bool:
    return isinstance(argument, Node) or (
        isinstance(argument, (list, tuple)) and any(map(_holds_node, argument))
    )


def _same_constant(first: Recorded, second: Recorded, one: Node, other: Node) -> bool:
    a, b = getattr(first.graph, one.target), getattr(second.graph, other.target)
    return not isinstance(a, Tensor) or (a.shape == b.shape and torch.equal(a, b))


def _told(node: Node, what: str) -> str:
    place = node.meta.get("stack_trace") or next(
        (user.meta["stack_trace"] for user in node.users if user.meta.get("stack_trace")), ""
    )
    line = named(parsed(place))
    return f"{what} at {line}" if line else what
