"""Everything that is changed about torch and Pyro as a whole, and the lock that it is behind.

Pyro's handlers stand on one stack for all threads, and a patch is seen by all of them.  So a
program runs, and is recorded, by one thread at a time (`one_thread`); compiled code needs neither,
and runs beside.  The stream of random numbers is torch's, one for all threads: draws of threads
that run at once are not independent, and where one compiles while another draws, the comparison of
a record with its program may fail by that alone (the program then runs as written).

A record cannot hold a look at a tensor's value.  Pyro's ELBOs look, torch's distributions look,
and torch's optimisers ask whether they are being compiled; meanwhile each gets another answer.

An ELBO that sums over discrete latents weighs each cost with a probability and leaves out those of
probability zero, whose cost may be infinite:

    E[cost] = sum_c prob(c) cost(c)   over the c with prob(c) > 0.

Pyro asks whether there are any; here their cost counts as zero: the same sum and gradient.
"""

import numbers
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer import util
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK, am_i_wrapped
from torch import Tensor
from torch.fx.proxy import TracerBase
from torch.overrides import TorchFunctionMode

_INSTEAD = {
    "torch_item": lambda x: x if isinstance(x, numbers.Number) else x.detach(),
    "warn_if_nan": lambda value, *_, **__: value,
}


class _OneThread:
    """A lock that leaves Pyro's stacks as they were where an error or Ctrl-C cuts a program short.

    Pyro takes down handlers and plates as its contexts are left; an interruption within one of
    these does not get there, and every later plate of that name would be called a duplicate.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.RLock(), 0
        self._before: tuple[list, list] = ([], [])

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._before = list(_PYRO_STACK), list(_DIM_ALLOCATOR._stack)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._depth == 1 and kind is not None:
            _PYRO_STACK[:], _DIM_ALLOCATOR._stack[:] = self._before
        self._depth -= 1
        self._lock.release()


one_thread = _OneThread()
"""Held, as ``with one_thread:``, while a Pyro program runs or anything global is changed."""


def handlers_around() -> bool:
    """Whether Pyro's handlers are around this call; those of another thread are waited for."""
    if not am_i_wrapped():
        return False
    with one_thread:
        return am_i_wrapped()


@contextmanager
def argument_checks_kept() -> Iterator[None]:
    """Has torch's distributions look at their arguments afterwards as they did before.

    zuko, imported, turns that off for the whole process; Pyro's switch keeps an account of its
    own, and would turn it on again where a user had turned it off.
    """
    before = torch.distributions.Distribution._validate_args
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


class _Unvalidated:
    """Turns looks at values off for all threads, until the last that asked for it is done."""

    def __init__(self) -> None:
        self._depth, self._before = 0, ExitStack()

    def __enter__(self) -> None:
        with one_thread:
            if not self._depth:
                self._before.enter_context(argument_checks_kept())
                self._before.enter_context(pyro.validation_enabled(False))
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with one_thread:
            self._depth -= 1
            if not self._depth:
                self._before.close()


unvalidated = _Unvalidated()
"""``with unvalidated:`` Pyro and torch look at no values; two threads do not undo each other."""


_fulldot, _expectation = util._fulldot, util.Dice.compute_expectation


@contextmanager
def recordable() -> Iterator[None]:
    """Lets programs and Pyro's ELBOs run without a look at a value; traces keep every line."""
    with one_thread, unvalidated, ExitStack() as stack:

        def patch(owner: Any, name: str, instead: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, instead))

        # Distributions made earlier still look at values; they are wanted unlooked at.
        patch(torch.distributions.Distribution, "_validate_sample", _accept)
        for name, module in list(sys.modules.items()):
            if name.startswith("pyro.infer."):
                for function in _INSTEAD.keys() & vars(module).keys():
                    patch(module, function, _INSTEAD[function])
        patch(util, "_fulldot", _possible_alone)
        patch(util.Dice, "compute_expectation", _unasked)
        patch(TracerBase, "_filter_traceback_frames", lambda _, kept: kept)
        yield


@contextmanager
def compiling_state() -> Iterator[None]:
    """Lets torch's optimisers keep step counts and rates as tensors, as under torch.compile."""
    with one_thread, mock.patch.object(torch.compiler, "_is_compiling_flag", True):
        yield


def _accept(*_: Any) -> None:
    """Takes any value."""


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
