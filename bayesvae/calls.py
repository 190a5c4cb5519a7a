"""What tells one call from another: arguments, and the tensors that a program reads besides."""

import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import chain
from operator import is_
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bayesvae.tracing import Recorded, changes, layout_guard, tree_flatten, tree_unflatten

_TENSOR, _NUMBER = object(), object()


def layout(tensor: Tensor) -> tuple:
    """What a trace fixes of a tensor."""
    return (tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad, tensor.stride())


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


def homes(modules: Sequence[nn.Module]) -> Iterator[tuple[dict, str, Tensor]]:
    """The tensors that modules hold, with the dict and the name that each is found by."""
    for owner in chain.from_iterable((m._parameters, m._buffers, vars(m)) for m in modules):
        for name, value in owner.items():
            if isinstance(value, Tensor):
                yield owner, name, value


@contextmanager
def unchanged(modules: Sequence[nn.Module]) -> Iterator[list[tuple[str, Tensor]]]:
    """Puts back what is not trained, such as the statistics that a layer keeps running.

    Yields a list that holds, in the end, the tensors that others took the place of, and their
    names.
    """
    held, assigned = list(homes(modules)), []
    copies = [None if value.requires_grad else value.clone() for _, _, value in held]
    try:
        yield assigned
    finally:
        with torch.no_grad():
            for (owner, name, value), copy in zip(held, copies, strict=True):
                if owner.get(name) is not value:
                    owner[name] = value
                    assigned.append((name, value))
                if copy is not None:
                    value.copy_(copy)


def effects(
    recorded: Recorded, assigned: Sequence[tuple[str, Tensor]], modules: Sequence[nn.Module]
) -> str:
    """What a program changes that its record would not, in words; empty if nothing.

    Args:
        recorded: the record.
        assigned: tensors that the program put others in the place of, and their names.
        modules: those that hold tensors.
    """
    read = {id(tensor) for tensor in recorded.captured}
    if lost := [name for name, tensor in assigned if id(tensor) in read]:
        return f"the program puts another tensor in the place of {lost}; change it in place"
    held = {id(tensor) for _, _, tensor in homes(modules)}
    for tensor, place in changes(recorded):
        if id(tensor) not in held:
            return "the program changes a tensor that no module holds" + (
                place and f", at {place}"
            )
    return ""


class Watch:
    """The modules that a program reads, and what a trace fixes of them.

    Args:
        roots: the modules that hold all others.

    Attributes:
        modules: all of them.
        whole: whether `taking_in` has been over a call of the program.
    """

    def __init__(self, roots: Iterable[nn.Module]) -> None:
        self._roots, self.whole = list(roots), False
        self._look()

    @contextmanager
    def taking_in(self) -> Iterator[None]:
        """Watches from now on what is called meanwhile, such as a module that is a global."""
        met: list[nn.Module] = []
        hook = register_module_forward_pre_hook(lambda module, _: met.append(module))
        try:
            yield
        finally:
            hook.remove()
        self.whole = True
        known = set(self.modules)
        self._roots += [module for module in met if module not in known]
        self._look()

    def double(self) -> bool:
        """Whether the modules, or Pyro's store, hold float64 parameters."""
        store = pyro.get_param_store()._params.values()
        parameters = chain(_values(self._parameters_of), store)
        return any(p is not None and p.dtype is torch.float64 for p in parameters)

    def _look(self) -> None:
        reached = (m for root in self._roots for m in root.modules())
        self.modules = list({id(m): m for m in reached}.values())
        self._states = [vars(m) for m in self.modules]
        self._children_of = [m._modules for m in self.modules]
        self._parameters_of = [m._parameters for m in self.modules]
        self._children = _values(self._children_of)

    def modes(self) -> tuple | None:
        """Which modules train and which parameters are to be trained.

        None, once, after a module was put in another's place.
        """
        children = _values(self._children_of)
        if len(children) != len(self._children) or not all(map(is_, children, self._children)):
            self._look()
            return None
        parameters = _values(self._parameters_of)
        return (
            tuple(map(_MODE, self._states)),
            tuple([p.requires_grad for p in parameters if p is not None]),
        )


_MODE = operator.itemgetter("training")


def _values(dicts: Iterable[dict]) -> list:
    return list(chain.from_iterable(map(dict.values, dicts)))


class Reading:
    """The tensors that a record reads besides its inputs, found anew at every call.

    One that is put in the place of another, as a buffer by assignment, is read instead.

    Args:
        captured: the tensors.
        modules: where they may be kept, beside Pyro's store; others are read as they are.
        before: an earlier reading, which knows where some of them were kept.

    Attributes:
        kept: the tensors of the last call.
    """

    def __init__(
        self,
        captured: Sequence[Tensor],
        modules: Sequence[nn.Module],
        before: "Reading | None" = None,
    ) -> None:
        store = pyro.get_param_store()._params
        found = {id(value): (store, name) for name, value in store.items()}
        found |= {id(value): (owner, name) for owner, name, value in homes(modules)}
        found |= {} if before is None else before.places
        places = [found.get(id(tensor), ((tensor,), 0)) for tensor in captured]
        self.places = dict(zip(map(id, captured), places, strict=True))
        self._captured = list(captured)  # keeps these ids theirs
        self._owners, self._names = [list(each) for each in zip(*places, strict=True)] or ([], [])
        self.kept = list(captured)
        self._layouts = [layout(tensor) for tensor in captured]
        self._pointers = list(map(Tensor.data_ptr, captured))
        self._laid_out_so = layout_guard(captured)

    def found(self) -> list[Tensor]:
        """The tensors as they are now."""
        return list(map(operator.getitem, self._owners, self._names))

    def now(self) -> list[Tensor] | None:
        """The tensors as they are now; None if compiled code may no longer read them."""
        try:
            now = self.found()
            pointers = list(map(Tensor.data_ptr, now))
        except (KeyError, TypeError, AttributeError):  # gone, or no tensor any more
            return None
        same = pointers == self._pointers and all(map(is_, now, self.kept))
        if same and self._laid_out_so(*now):
            return now
        for tensor, kept, known in zip(now, self.kept, self._layouts, strict=True):
            # An optimiser keeps the parameter that it had; a CUDA graph, the places in memory.
            other = tensor is not kept and kept.requires_grad
            if other or (tensor.is_cuda and not same) or layout(tensor) != known:
                return None
        self.kept, self._pointers = now, pointers
        return now
