"""The arguments of a call: tensors that may change, and all else, which a trace fixes."""

import numbers
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

_TENSOR, _NUMBER = object(), object()


_PLAIN = (numbers.Number, str, bytes, type, Enum, torch.dtype, torch.device, torch.Size)
"""What cannot change while it is the same."""


def is_plain(fixed: Any) -> bool:
    """Whether all arguments but tensors are values, and not things with an inside."""
    known = (None, _TENSOR, _NUMBER)
    return all(isinstance(x, _PLAIN) or any(x is each for each in known) for x in fixed[1])


def taken_apart(
    args: tuple, kwargs: dict | None, double: Callable[[], bool] = lambda: False
) -> tuple[list[Tensor], Any]:
    """The tensors among the arguments, and an account of all else.

    Args:
        args: the arguments.
        kwargs: those by name.
        double: asked whether numbers are to be float64 though no argument is.
    """
    leaves, spec = args, None
    if kwargs or any(isinstance(a, (list, tuple, dict)) for a in args):
        leaves, spec = tree_flatten((args, kwargs or {}))
    tensors, fixed = [], []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
            fixed.append(_TENSOR)
        elif isinstance(leaf, float):
            wide = any(isinstance(t, Tensor) and t.dtype is torch.float64 for t in leaves)
            dtype = torch.float64 if wide or double() else torch.get_default_dtype()
            tensors.append(torch.tensor(float(leaf), dtype=dtype))
            fixed.append(_NUMBER)
        else:
            fixed.append(leaf)
    return tensors, (spec, tuple(fixed), tuple(map(type, fixed)))


def put_together(tensors: Sequence[Tensor], fixed: Any) -> tuple[tuple, dict]:
    """The arguments again, numbers as tensors."""
    spec, leaves, _ = fixed
    given = iter(tensors)
    filled = [next(given) if leaf is _TENSOR or leaf is _NUMBER else leaf for leaf in leaves]
    return (tuple(filled), {}) if spec is None else tree_unflatten(filled, spec)
