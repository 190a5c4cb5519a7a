"""How much memory a function asks for, by the tensors that its operations return."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class AllocatedBytes(TorchDispatchMode):
    """Adds up the bytes of every tensor that an operation returns: an upper bound of the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(item, Tensor):
                self.total += item.numel() * item.element_size()
        return result
