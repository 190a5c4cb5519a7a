"""Networks in half precision, densities in full.

bfloat16 has the range of float32 with 8 bits of precision: enough for a network's products, whose
noise is small beside that of sampling, not for the sums of log-densities.  So linear and
convolutional layers take and multiply rounded numbers and hand back float32, and all else
(activations, distributions, sums, optimiser) is left in float32.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_PRODUCTS = {
    functional.linear,
    functional.bilinear,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
}


class _Networks(TorchFunctionMode):
    """Runs the products of layers in another precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function not in _PRODUCTS:
            return function(*args, **(kwargs or {}))
        before = next(t for t in (*args, *(kwargs or {}).values()) if isinstance(t, Tensor)).dtype
        rounded = [self._rounded(each) for each in args]
        named = {name: self._rounded(each) for name, each in (kwargs or {}).items()}
        return function(*rounded, **named).to(before)

    def _rounded(self, value: Any) -> Any:
        single = isinstance(value, Tensor) and value.dtype is torch.float32
        return value.to(self.dtype) if single else value


def require_networks(dtype: torch.dtype | None) -> None:
    """Refuses a precision that networks cannot be run in.

    Raises:
        ValueError: with what was given.
    """
    if dtype not in (None, torch.bfloat16):
        raise ValueError(
            f"networks takes torch.bfloat16, or None for the parameters' own type; got {dtype}."
        )


def in_precision(function: Callable, networks: torch.dtype | None) -> Callable:
    """The function with its layers' products in another precision.

    Args:
        function: any function of tensors.
        networks: ``torch.bfloat16``, or None to leave the function as it is.
    """
    require_networks(networks)
    if networks is None:
        return function

    @wraps(function)
    def rounded(*args: Any, **kwargs: Any) -> Any:
        with _Networks(networks):
            return function(*args, **kwargs)

    return rounded
