"""Calls taken apart: the tensors among the arguments, and all else that a trace depends on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayesvae.tracing import tree_flatten, tree_unflatten

_TENSOR, _NUMBER = object(), object()


def layout(tensor: Tensor) -> tuple:
    """What a trace fixes of a tensor."""
    return (tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad)


def taken_apart(args: tuple, kwargs: dict | None) -> tuple[list[Tensor], Any]:
    """The tensors among the arguments, and a hashable account of all else."""
    leaves, spec = args, None
    if kwargs or any(isinstance(a, (list, tuple, dict)) for a in args):
        leaves, spec = tree_flatten((args, kwargs or {}))
    tensors, fixed = [], []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
            fixed.append(_TENSOR)
        elif type(leaf) is float:
            tensors.append(torch.tensor(leaf))
            fixed.append(_NUMBER)
        else:
            fixed.append(leaf)
    return tensors, (spec, tuple(fixed))


def put_together(tensors: Sequence[Tensor], fixed: Any) -> tuple[tuple, dict]:
    """The arguments again, numbers as tensors."""
    spec, leaves = fixed
    given = iter(tensors)
    filled = [next(given) if leaf is _TENSOR or leaf is _NUMBER else leaf for leaf in leaves]
    return (tuple(filled), {}) if spec is None else tree_unflatten(filled, spec)


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> str:
    """How two lists of outputs differ beyond rounding, in words; empty if they do not."""
    if len(first) != len(second):
        return f"{len(first)} outputs against {len(second)}"
    numbers = [t for t in second if t.is_floating_point() and t.numel()]
    largest = max((t.abs().max().item() for t in numbers), default=0.0)
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.shape != b.shape:
            return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
        tolerance = max(_rounding(a), _rounding(b)) ** 0.75
        scale = (b.abs().max().item() if b.numel() else 0.0) + 1e-3 * largest
        if not torch.allclose(a.to(b), b, rtol=0.0, atol=tolerance * scale, equal_nan=True):
            apart = (a - b).abs().max().item()
            return f"output {number} by {apart:.3g} of {scale:.3g}"
    return ""


def _rounding(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0
