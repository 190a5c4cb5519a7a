"""Pyro's ELBOs without a look at a tensor's value, which a record cannot hold.

An ELBO that sums over discrete latents weighs each cost with a probability and leaves out those of
probability zero, whose cost may be infinite:

    E[cost] = sum_c prob(c) cost(c)   over the c with prob(c) > 0.

Pyro asks whether there are any; here their cost counts as zero: the same sum and gradient.
"""

import numbers
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import torch
from pyro.infer import util
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INSTEAD = {
    "torch_item": lambda x: x if isinstance(x, numbers.Number) else x.detach(),
    "warn_if_nan": lambda value, *_, **__: value,
}
_fulldot, _expectation = util._fulldot, util.Dice.compute_expectation


@contextmanager
def item_free() -> Iterator[None]:
    """Lets Pyro's ELBOs keep their values as tensors where they would read numbers."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("pyro.infer."):
                for function in _INSTEAD.keys() & vars(module).keys():
                    stack.enter_context(mock.patch.object(module, function, _INSTEAD[function]))
        stack.enter_context(mock.patch.object(util, "_fulldot", _possible_alone))
        stack.enter_context(mock.patch.object(util.Dice, "compute_expectation", _unasked))
        yield


def _possible_alone(prob: Tensor, cost: Tensor) -> Tensor:
    """The sum of ``prob * cost`` over what has a probability above zero."""
    return _fulldot(prob, torch.where(prob > 0, cost, 0.0))


@wraps(_expectation)
def _unasked(*args: Any) -> Any:
    with _AllPossible():
        return _expectation(*args)


class _AllPossible(TorchFunctionMode):
    """Answers, in an expectation, that every probability is above zero."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return True if function is Tensor.all else function(*args, **(kwargs or {}))
