"""The tensors that a program reads besides its arguments: parameters, buffers, data it holds.

A record has them as inputs, by reference.  They are found anew at every call, so that one that is
put in the place of another is read instead; and what the program would change of them, but its
record would not, is found out.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import is_

import pyro
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.module import register_module_forward_pre_hook

from bayesvae.compiler.lowering import layout_guard
from bayesvae.compiler.program_lines import named, parsed
from bayesvae.compiler.tracing import Recorded


def layout(tensor: Tensor) -> tuple:
    """What a trace fixes of a tensor."""
    return (tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad, tensor.stride())


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


def changes(recorded: Recorded) -> Iterator[tuple[Tensor, str]]:
    """The captured tensors that a record changes, with the place in the program."""
    nodes = [n for n in recorded.graph.graph.nodes if n.op == "placeholder"]
    captured = dict(zip(nodes[recorded.inputs :], recorded.captured, strict=True))
    for node in recorded.graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Node) and value in captured:
                yield captured[value], named(parsed(node.meta.get("stack_trace") or ""))


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
        store = list(pyro.get_param_store()._params.values())  # another thread may add to it
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
